"""What the recorder keeps equals what the scores say of the same logits."""

from dataclasses import replace

import duckdb
import numpy as np
import pytest
import torch

from engine.errors import ScoreInputError, StorageError
from engine.scores.prediction import el2n, entropy, loss_last, margin_last, top2_gap
from engine.scores.registry import find_score
from engine.store.tables import RESULT_TABLES, create_sql
from engine.training import columns as recorded
from engine.training.columns import compute_columns, recorded_columns
from engine.training.recording import (
    DynamicsRecorder,
    Spill,
    create_trajectories,
    read_trajectories,
    write_trajectories,
)

N, C = 37, 4


def record(tmp_path, epochs=3, seed=0, keep_logits=True, name="a"):
    """A recorder fed with random logits in shuffled batches, and the logits and labels it was fed."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (N,), generator=generator)
    spill = Spill(tmp_path / f"{name}.dynamics", N, C, keep_logits)
    recorder = DynamicsRecorder(spill, torch.device("cpu"))
    logits = torch.randn(epochs, N, C, generator=generator)
    for epoch in range(epochs):
        for batch in torch.randperm(N, generator=generator).split(10):
            recorder.log(logits[epoch, batch], labels[batch], batch)
        recorder.end_epoch(epoch)
    return spill, logits, labels


def test_columns_equal_the_scores_of_each_epoch(tmp_path):
    spill, logits, labels = record(tmp_path)
    columns = spill.columns()
    assert set(columns) == set(recorded_columns())
    for epoch, z in enumerate(logits):
        probs = z.softmax(1)
        expected = {
            "p_given": probs[torch.arange(N), labels],
            "margin": margin_last(z, labels),
            "loss": loss_last(z, labels),
            "el2n": el2n(probs, labels),
            "entropy": entropy(probs),
            "top2_gap": top2_gap(probs),
            "logit_given": z[torch.arange(N), labels],
            "predicted": z.argmax(1).short(),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(columns[name][epoch], value.numpy(), rtol=1e-6, atol=1e-7, err_msg=name)
        np.testing.assert_array_equal(spill.logits()[epoch], z.numpy())


def test_a_tie_is_predicted_as_argmax_does():
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    columns = compute_columns(logits, torch.tensor([0, 1, 2]))
    assert columns["predicted"].tolist() == logits.argmax(1).tolist() == [0, 0, 1]


def test_columns_of_logits_far_apart_are_finite():
    """Exponentials that float32 cannot hold, at either end of what a logit may be."""
    logits = torch.tensor([[1.5e38, -1.5e38, 0.0], [-150.0, 0.0, -1e30], [3e38, 3e38, 3e38], [88.0, 0.0, -88.0]])
    for label in range(3):
        columns = compute_columns(logits, torch.full((4,), label))
        probs = logits.softmax(1)
        assert all(values.isfinite().all() for values in columns.values())
        np.testing.assert_allclose(columns["el2n"], el2n(probs, torch.full((4,), label)), rtol=1e-6, atol=1e-30)
        np.testing.assert_allclose(columns["entropy"], entropy(probs), rtol=1e-6, atol=1e-30)
        assert torch.equal(columns["loss"], loss_last(logits, torch.full((4,), label)))
        assert torch.equal(columns["margin"], margin_last(logits, torch.full((4,), label)))


def test_a_score_that_is_recorded_needs_no_more_than_its_function(monkeypatch):
    own = replace(find_score("el2n"), function=lambda probs, labels: probs[:, 0] + labels, recorded="own")
    monkeypatch.setattr(recorded, "recorded_scores", lambda: {"own": own})
    logits, labels = torch.randn(5, C), torch.arange(5) % C
    assert torch.equal(compute_columns(logits, labels)["own"], logits.softmax(1)[:, 0] + labels)


def test_staging_does_not_change_what_is_recorded(tmp_path, monkeypatch):
    whole, _, _ = record(tmp_path)
    for name in ("CACHED_VALUES", "LANES"):
        monkeypatch.setattr(f"engine.training.recording.{name}", 1)
    one_by_one, _, _ = record(tmp_path, name="b")
    assert whole.path.read_bytes() == one_by_one.path.read_bytes()


def test_a_sample_never_logged_is_named(tmp_path):
    recorder = DynamicsRecorder(Spill(tmp_path / "x", N, C, False), torch.device("cpu"))
    recorder.log(torch.zeros(5, C), torch.zeros(5, dtype=torch.long), torch.arange(5))
    with pytest.raises(ScoreInputError, match="32 of 37 samples were not logged .* the first is 5"):
        recorder.end_epoch(0)


def test_a_sample_missed_later_keeps_its_values(tmp_path):
    recorder = DynamicsRecorder(Spill(tmp_path / "x", 2, C, False), torch.device("cpu"))
    labels = torch.tensor([0, 1])
    recorder.log(torch.eye(2, C), labels, torch.arange(2))
    recorder.end_epoch(0)
    recorder.log(3 * torch.eye(2, C)[:1], labels[:1], torch.arange(1))
    recorder.end_epoch(1)
    assert recorder.spill.columns()["margin"].tolist() == [[1.0, 1.0], [3.0, 1.0]]


def test_logits_that_are_not_finite_name_the_sample(tmp_path):
    recorder = DynamicsRecorder(Spill(tmp_path / "x", 3, 2, False), torch.device("cpu"))
    recorder.log(
        torch.tensor([[0.0, 1.0], [float("nan"), 0.0], [1.0, 0.0]]), torch.zeros(3, dtype=torch.long), torch.arange(3)
    )
    with pytest.raises(ScoreInputError, match="logits of sample 1 are not finite"):
        recorder.end_epoch(0)


def test_restore_forgets_later_epochs_and_carries_on(tmp_path):
    spill, _, _ = record(tmp_path, epochs=3)
    whole = spill.path.read_bytes()
    again = DynamicsRecorder(spill, torch.device("cpu"))
    again.restore(2)
    assert spill.epochs() == 2
    again.end_epoch(2)  # nothing logged: the epoch before is kept
    assert spill.columns()["loss"][2].tolist() == spill.columns()["loss"][1].tolist()
    assert spill.path.read_bytes()[: 2 * spill.epoch_bytes] == whole[: 2 * spill.epoch_bytes]
    with pytest.raises(StorageError, match="3 epochs, the checkpoint 7"):
        again.restore(7)


def test_trajectories_come_back_as_they_were(tmp_path, monkeypatch):
    first, _, labels = record(tmp_path, name="a")
    second, _, _ = record(tmp_path, name="b", seed=0, keep_logits=False)
    monkeypatch.setattr("engine.training.recording.BLOCK_BYTES", 4000)  # several blocks
    with duckdb.connect() as connection:
        connection.execute(create_sql(RESULT_TABLES))
        create_trajectories(connection)
        done = []
        write_trajectories(
            connection, [first, second], np.arange(N), labels.numpy(), lambda n, total: done.append((n, total))
        )
        back = read_trajectories(connection, "trajectories", ["correct", "el2n", "label", "margin"], 5, 20)
        kept = connection.execute(
            "SELECT seed, count(*), any_value(len(logits)) FROM logit_trajectories GROUP BY 1"
        ).fetchall()
    assert len(done) > 1 and done[-1] == (N, N)
    assert back["margin"].shape == (2, 3, 15)
    np.testing.assert_array_equal(back["margin"][0], first.columns()["margin"][:, 5:20])
    np.testing.assert_array_equal(back["el2n"][1], second.columns()["el2n"][:, 5:20])
    assert torch.equal(back["label"], labels[5:20])
    assert torch.equal(
        back["correct"][0], torch.from_numpy(first.columns()["predicted"][:, 5:20] == labels[5:20].numpy())
    )
    assert kept == [(0, N, 3 * C)]


@pytest.mark.parametrize("classes", [2, 10, 63, 130])
def test_columns_are_what_their_formulas_say(classes):
    generator = torch.Generator().manual_seed(classes)
    logits = 6 * torch.randn(300, classes, generator=generator)
    logits[:4] = 0.0  # ties of all
    logits[4] = torch.eye(classes)[1] * 200  # probabilities of 0 and 1
    logits[5:60] = logits[5:60].round()  # ties of some
    labels = torch.randint(classes, (300,), generator=generator)
    columns = compute_columns(logits, labels)
    z, i = logits.double(), torch.arange(300)
    p, logs = z.softmax(1), z.log_softmax(1)
    masked = z.clone()
    masked[i, labels] = -torch.inf
    top = p.topk(2).values
    expected = {
        "p_given": p[i, labels],
        "margin": z[i, labels] - masked.amax(1),
        "loss": -logs[i, labels],
        "el2n": (p - torch.eye(classes)[labels]).norm(dim=1),
        "entropy": -(p * logs).sum(1),
        "top2_gap": top[:, 0] - top[:, 1],
        "logit_given": z[i, labels],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(columns[name].numpy(), value.numpy(), rtol=2e-5, atol=2e-6, err_msg=name)
    np.testing.assert_array_equal(columns["predicted"], logits.argmax(1))
    np.testing.assert_array_equal(columns["other"], np.argmax(masked.numpy(), axis=1))  # the first of equal ones


@pytest.mark.parametrize("classes", [3, 10, 64])
def test_a_sample_has_the_same_bits_in_any_batch(classes):
    """Blocks, padding and threads must not show: 700 samples at once and in batches of 1 to 130."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(700, classes, generator=generator), torch.randint(classes, (700,), generator=generator)
    whole = compute_columns(logits, labels)
    start = 0
    for size in (1, 7, 63, 64, 65, 130, 370):
        part = compute_columns(logits[start : start + size], labels[start : start + size])
        assert all(torch.equal(part[name], whole[name][start : start + size]) for name in whole)
        start += size
