"""Duplicates: groups by hand, against a plain search over all pairs, and in runs with and without features."""

import duckdb
import numpy as np
import pytest
import torch
from PIL import Image

from engine.data.ingest import ingest
from engine.data.request import IngestSpec
from engine.errors import NotFoundError
from engine.features.duplicates import NEAR_DISTANCE, NEAR_SHARE, Pairs, group_duplicates, near_pairs, near_threshold
from engine.features.neighbors import compute_neighbors
from engine.queries.chosen import find_copies
from engine.queries.connection import connected
from engine.queries.duplicates import fetch_duplicates
from engine.queries.groups import fetch_spare_copies
from engine.runs.pipeline import run
from engine.runs.planning import plan_run
from engine.spec import TrainingSpec
from engine.store.workspace import Workspace


def pairs(*triples):
    one, other, similarity = zip(*triples, strict=True)
    return Pairs(np.array(one), np.array(other), np.array(similarity, np.float32))


def test_groups_by_hand():
    # Training samples 0 .. 5, test samples 6 .. 8. 0, 2 and 7 are copies; 3-4 and 4-8 are near, so 3, 4 and 8 are one
    # group though 3 and 8 are not near; 1, 5 and 6 are alone.
    contents = ["a", "b", "a", "c", "d", "e", "f", "a", "g"]
    found = group_duplicates(contents, 6, [pairs((3, 4, 0.9), (4, 3, 0.9)), pairs((8, 4, 0.95))])
    assert found.sample.tolist() == [0, 2, 7, 3, 4, 8]
    assert found.group.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.similarity.tolist() == pytest.approx([1, 1, 1, 0.9, 0.95, 0.95])
    assert found.exact.tolist() == [True, True, True, False, False, False]
    assert found.leak.tolist() == [True] * 6
    found = group_duplicates(contents[:6], 6, [pairs((3, 4, 0.9))])
    assert (found.sample.tolist(), found.leak.any()) == ([0, 2, 3, 4], False)
    assert not len(group_duplicates(["a", "b"], 2).sample) and not len(group_duplicates([], 0).sample)


def test_groups_are_those_of_a_search_over_all_pairs():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=generator)
    features[40:] = features[:20] + 0.15 * torch.randn(20, 5, generator=generator)
    ids, similarities = compute_neighbors(features, 30)
    found = group_duplicates([str(i) for i in range(60)], 45, [near_pairs(ids, similarities, 0, 0.97)])
    unit = features / features.norm(dim=1, keepdim=True)
    near = (unit @ unit.T >= 0.97).numpy()
    reached = np.linalg.matrix_power(near.astype(float), 60) > 0  # who is reached in sixty steps
    assert found.sample.tolist() == sorted(found.sample.tolist(), key=lambda i: (np.flatnonzero(reached[i])[0], i))
    for sample, group in zip(found.sample, found.group, strict=True):
        assert found.sample[found.group == group].tolist() == np.flatnonzero(reached[sample]).tolist()
    assert set(range(60)) - set(found.sample) == set(np.flatnonzero(reached.sum(1) == 1))


def test_what_is_near_depends_on_how_alike_all_are():
    # The median distance to the last neighbor is 0.5: a near duplicate is within 0.12. Where it is 0.1, within 0.03.
    assert near_threshold(torch.tensor([[0.99, 0.5]] * 5)) == pytest.approx(1 - NEAR_DISTANCE)
    assert near_threshold(torch.tensor([[0.99, 0.9]] * 5)) == pytest.approx(1 - NEAR_SHARE * 0.1)
    # Copies of everything shorten the distance to the nearest, not to the last of the neighbors.
    assert near_threshold(torch.tensor([[1.0, 0.5]] * 5)) == pytest.approx(1 - NEAR_DISTANCE)


@pytest.fixture
def photographs(tmp_path):
    """30 training and 10 test images of shapes; 2 copies in training, one with another label, one across the splits."""
    generator = np.random.default_rng(0)
    images = []
    for _ in range(40):
        small = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        images.append(small.resize((40, 40), Image.Resampling.BICUBIC))
    images[5], images[6], images[33] = images[4], images[7], images[2]
    for i, image in enumerate(images):
        folder = tmp_path / "photographs" / ("train" if i < 30 else "test") / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{i:02}.png")
    workspace = Workspace(tmp_path / "workspace")
    ingest(
        workspace,
        IngestSpec("photographs", str(tmp_path / "photographs" / "train"), str(tmp_path / "photographs" / "test")),
    )
    return workspace, tmp_path


def numbers(connection, ids):
    """The numbers of the files of some samples."""
    rows = connection.execute("SELECT sample_id, source FROM samples").fetchall()
    places = {i: int(source[-6:-4]) for i, source in rows}
    return {places[i] for i in ids}


def test_a_run_without_features_finds_exact_copies(photographs):
    workspace, _ = photographs
    run_id, _ = run(workspace, plan_run(workspace, "photographs", ["dark"], TrainingSpec()), torch.device("cpu"))
    with connected(workspace, "photographs", [run_id]) as connection:
        found = fetch_duplicates(connection, run_id)
        groups = [numbers(connection, ids) for ids in found["sample_ids"]]
        assert groups[0] == {2, 33} and sorted(map(sorted, groups[1:])) == [[4, 5], [6, 7]]
        assert found["leak"].tolist() == [True, False, False] and found["exact"].all()
        assert found[["samples", "train", "test"]].values.tolist() == [[2, 1, 1], [2, 2, 0], [2, 2, 0]]
        assert found["labels"].tolist() == [2, 2, 2]  # of an even and an odd number each: other labels
        assert fetch_duplicates(connection, run_id, leaks_only=True)["group_id"].tolist() == [found["group_id"][0]]
        (notes,) = connection.execute("SELECT notes FROM runs").fetchone()
    assert "6 samples are duplicates, in 3 groups (exact copies alone); 1 with samples of both splits" in notes
    with connected(workspace, "photographs", []) as connection:
        assert numbers(connection, find_copies(workspace, "photographs")) == {2, 5, 7}  # 2 is in the test part as well


def test_of_a_group_the_least_suspicious_training_sample_stays_and_none_beside_a_test_sample():
    connection = duckdb.connect()
    connection.execute("CREATE TABLE duplicates (run_id VARCHAR, group_id INT, sample_id INT, split VARCHAR)")
    connection.execute("CREATE TABLE shortlist (run_id VARCHAR, sample_id INT, p_wrong FLOAT)")
    groups = [(0, 3, "train"), (0, 1, "train"), (0, 8, "train"), (1, 4, "train"), (1, 5, "train"), (1, 9, "test")]
    groups += [(2, 6, "train"), (2, 7, "train"), (3, 10, "test"), (3, 11, "test")]
    connection.executemany("INSERT INTO duplicates VALUES ('r', ?, ?, ?)", groups)
    connection.execute("INSERT INTO duplicates VALUES ('other', 0, 2, 'train'), ('other', 0, 12, 'train')")
    connection.executemany(
        "INSERT INTO shortlist VALUES (?, ?, ?)", [("r", 1, 0.9), ("r", 3, 0.2), ("r", 8, 0.2), ("other", 1, 0)]
    )
    # group 0: 3 and 8 are as likely, 3 stays; group 1: its test sample alone stays; group 2 was not judged: 6 stays
    assert fetch_spare_copies(connection, "r").tolist() == [1, 4, 5, 7, 8]
    assert fetch_spare_copies(connection, "none").tolist() == []


def test_copies_are_looked_for_before_they_are_dropped(small_workspace):
    with pytest.raises(NotFoundError, match="found duplicates; winnow run small looks for them"):
        find_copies(small_workspace, "small")


def test_a_run_with_features_finds_near_ones_across_the_splits(photographs):
    workspace, folder = photographs
    with connected(workspace, "photographs", []) as connection:
        rows = connection.execute("SELECT sample_id, source FROM samples ORDER BY sample_id").fetchall()
    order = [int(source[-6:-4]) for _, source in rows]
    by_number = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    for copy, original in ((5, 4), (6, 7), (33, 2)):
        by_number[copy] = by_number[original]
    noise = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    by_number[[10, 38, 39]] = by_number[[9, 11, 37]] + 0.1 * noise  # in training; across; in the test part
    np.save(folder / "features.npy", by_number[order].numpy())
    spec = plan_run(
        *(workspace, "photographs", ["near_duplicate"], TrainingSpec()),
        features=str(folder / "features.npy"),
        neighbors=5,
    )
    run_id, _ = run(workspace, spec, torch.device("cpu"))
    with connected(workspace, "photographs", [run_id]) as connection:
        found = fetch_duplicates(connection, run_id)
        groups = [numbers(connection, ids) for ids in found["sample_ids"]]
        leaks = {tuple(sorted(group)) for group, leak in zip(groups, found["leak"], strict=True) if leak}
        assert leaks == {(2, 33), (11, 38)}
        assert {tuple(sorted(group)) for group in groups} - leaks == {(4, 5), (6, 7), (9, 10), (37, 39)}
        exact = {tuple(sorted(group)) for group, exact in zip(groups, found["exact"], strict=True) if exact}
        assert exact == {(2, 33), (4, 5), (6, 7)}
        cosine = torch.nn.functional.cosine_similarity(by_number[11], by_number[38], dim=0)
        at = groups.index({11, 38})
        assert found["similarity"][at] == pytest.approx(float(cosine), abs=1e-5)
