"""`python -m engine.cli`: what the dashboard starts runs with."""

from engine.cli.commands import main

main()
