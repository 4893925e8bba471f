"""The command `winnow`: a file per group of commands, thin over the engine."""
