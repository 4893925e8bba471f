import numpy as np
import pytest
import torch

from engine.data.loader import epoch_batches, load_split, normalisation, to_float
from engine.errors import ScoreInputError, SpecError
from engine.queries.connection import connected
from engine.recorder import Recorder
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.scores.registry import all_scores
from engine.store.jobs import fetch_job
from engine.training.loop import build_optimizer
from engine.training.models import build_model


def leftovers(workspace):
    return [p.name for p in (workspace.root / "runs").iterdir() if p.name.startswith(".recording")]


def record_by_hand(workspace, training):
    """The training of winnow's own loop, written out as somebody else would."""
    samples = load_split(workspace, "small", "train")
    scale = normalisation(samples)
    with Recorder(workspace.root, "small", name="by hand") as recorder:
        for seed in range(training.seeds):
            if seed:
                recorder.next_seed()
            network = build_model(training.model, samples.inputs.shape[1:], samples.classes, seed)
            optimizer = build_optimizer(network, training)
            for epoch in range(training.epochs):
                network.train()
                for batch in epoch_batches(samples, training.batch_size, seed, epoch):
                    logits = network(to_float(samples.inputs[batch], *scale))
                    loss = torch.nn.functional.cross_entropy(logits, samples.labels[batch])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    recorder.log(logits, samples.labels[batch], samples.sample_ids[batch])
                recorder.end_epoch()
    return recorder.close()


@pytest.fixture
def one_thread():
    """Ours trains two networks on one thread each: sums split over two threads end in other last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_loop_of_ones_own_publishes_what_ours_does(small_workspace, small_training, one_thread):
    training = small_training()
    recordable = [name for name, found in all_scores().items() if found.over_dynamics or found.cost == "free"]
    ours, _ = compute(small_workspace, plan_run(small_workspace, "small", recordable, training), "cpu")
    theirs = record_by_hand(small_workspace, training)
    with connected(small_workspace, "small") as connection:
        for sql in (
            "SELECT * EXCLUDE (run_id) FROM dynamics WHERE run_id = ? ORDER BY seed, epoch, sample_id",
            "SELECT * EXCLUDE (run_id) FROM logits WHERE run_id = ? ORDER BY seed, epoch, sample_id",
            "SELECT score, sample_id, value FROM scores WHERE run_id = ? ORDER BY ALL",
        ):
            assert connection.execute(sql, [ours]).fetchall() == connection.execute(sql, [theirs]).fetchall()
        runs = dict(connection.execute("SELECT kind, title FROM runs").fetchall())
    assert runs == {"run": "mlp, 3 epochs, 2 seeds", "recorded": "by hand, 3 epochs, 2 seeds"}
    assert fetch_job(small_workspace, theirs).state == "done" and leftovers(small_workspace) == []
    assert record_by_hand(small_workspace, training) == theirs  # the same recording is the same run


def test_a_loop_that_fails_leaves_nothing(small_workspace):
    before = small_workspace.run_ids()
    with pytest.raises(ZeroDivisionError), Recorder(small_workspace.root, "small") as recorder:
        recorder.log(torch.zeros(4, 10), torch.zeros(4, dtype=torch.long), torch.arange(4))
        raise ZeroDivisionError
    assert small_workspace.run_ids() == before and leftovers(small_workspace) == []


@pytest.fixture
def recorder(small_workspace):
    made = Recorder(small_workspace.root, "small")
    yield made
    made.__exit__(ZeroDivisionError, None, None)


def labels_of(workspace):
    return load_split(workspace, "small", "train").labels


def test_wrong_batches_are_refused(small_workspace, recorder):
    labels = labels_of(small_workspace)
    with pytest.raises(ScoreInputError, match=r"expected \(4, 10\) and \(4,\)"):
        recorder.log(torch.zeros(4, 3), labels[:4], torch.arange(4))
    with pytest.raises(ScoreInputError, match="before any log"):
        recorder.end_epoch()
    recorder.log(torch.zeros(4, 10), labels[:4], torch.arange(198, 202))
    with pytest.raises(ScoreInputError, match="sample_id 200; allowed: 0 to 199"):
        recorder.end_epoch()


def test_labels_of_another_order_are_noticed(small_workspace, recorder):
    labels = labels_of(small_workspace)
    recorder.log(torch.zeros(200, 10), labels.roll(1), torch.arange(200))
    with pytest.raises(ScoreInputError, match="check that sample_ids are the dataset's"):
        recorder.end_epoch()


def test_networks_of_different_lengths_are_refused(small_workspace, recorder):
    labels = labels_of(small_workspace)
    with pytest.raises(ScoreInputError, match="epochs recorded per network: none"):
        recorder.close()
    for epochs in (2, 1):
        for _ in range(epochs):
            recorder.log(torch.zeros(200, 10), labels, torch.arange(200))
            recorder.end_epoch()
        if epochs == 2:
            recorder.next_seed()
    with pytest.raises(ScoreInputError, match="epochs recorded per network: 2, 1"):
        recorder.close()


def test_tensors_may_be_reused_after_log(small_workspace):
    labels = labels_of(small_workspace)
    logits, ids = torch.randn(200, 10), torch.arange(200)
    kept = logits.clone()
    with Recorder(small_workspace.root, "small") as recorder:
        recorder.log(logits, labels, ids)
        logits.zero_()
        ids.zero_()
        recorder.end_epoch()
    with connected(small_workspace, "small") as connection:
        rows = connection.execute("SELECT logits FROM logits ORDER BY sample_id").fetchall()
    assert np.array_equal(np.array(rows)[:, 0].astype(np.float32), kept.numpy())
    with pytest.raises(SpecError, match="closed"):
        recorder.log(logits, labels, ids)
