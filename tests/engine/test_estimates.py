"""How long ingesting, kernel velocity and a detector will take: seconds above 0, 0 where it is there, nothing written."""

from __future__ import annotations

import json

import pytest
from test_cli import refused, winnow

from engine.data.request import IngestSpec
from engine.errors import SpecError
from engine.runs.estimates import detector_seconds, ingest_seconds, velocity_seconds
from engine.store.workspace import Workspace


def files(workspace: Workspace) -> set[str]:
    return {str(path.relative_to(workspace.root)) for path in workspace.root.rglob("*") if path.name != "lock"}


def test_the_time_of_ingesting_is_found_without_ingesting(small_workspace: Workspace) -> None:
    before = files(small_workspace)
    digits = IngestSpec(name="digits", source="digits")
    assert ingest_seconds(small_workspace, digits) > 0.5
    assert (
        ingest_seconds(small_workspace, IngestSpec(name="noisy", source="dataset:small", noise="symmetric:0.1")) > 0.5
    )
    confused = IngestSpec(name="noisy", source="dataset:small", noise="instance:0.1")
    assert ingest_seconds(small_workspace, confused) > 0.6  # networks are trained for it
    assert files(small_workspace) == before
    there = IngestSpec(name="small", source="digits", limit=200, noise="symmetric:0.2")
    assert ingest_seconds(small_workspace, there) == 0
    with pytest.raises(SpecError, match="dataset 'small' exists, made with source digits, not synthetic"):
        ingest_seconds(small_workspace, IngestSpec(name="small", source="synthetic"))


def test_the_command_says_it_and_ingests_nothing(small_workspace: Workspace) -> None:
    root = small_workspace.root
    done = winnow("ingest", "more", "--from", "digits", "--estimate", "--json", workspace=root)
    assert json.loads(done.stdout)["seconds"] > 0 and small_workspace.datasets() == ["small"]
    refused(winnow("ingest", "more", "--from", "/not/there", "--estimate", workspace=root), "/not/there")


def test_velocity_and_a_detector_are_timed_on_a_part(scored_workspace: Workspace) -> None:
    (run,) = scored_workspace.published_runs()
    before = files(scored_workspace)
    few = velocity_seconds(scored_workspace, "small", "aum", run, 2)
    assert few > 0.5 and detector_seconds(scored_workspace, "small", run, None, 10) > 0.5
    assert files(scored_workspace) == before
    scored_workspace.velocity_path(run, "aum").write_text("[]")
    assert velocity_seconds(scored_workspace, "small", "aum", run) == 0
