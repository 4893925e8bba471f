import gc

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from engine.data.loader import epoch_batches, load_split, normalization, to_float
from engine.errors import ScoreInputError, SpecError
from engine.queries.connection import connected
from engine.recorder import Recorder, WithIds
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
    scale = normalization(samples)
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


def record(workspace, outputs, given, labels, name="recorded"):
    with Recorder(workspace.root, "small", name=name, outputs=outputs) as recorder:
        recorder.log(given, labels, torch.arange(200))
        recorder.end_epoch()
    return recorder.close()


def columns_of(workspace, run_id):
    with connected(workspace, "small", [run_id]) as connection:
        rows = connection.execute("SELECT * FROM dynamics ORDER BY sample_id").fetchnumpy()
    return {name: np.asarray(values) for name, values in rows.items() if name not in ("run_id", "other")}


def test_probabilities_are_recorded_as_the_logits_they_come_from(small_workspace):
    labels = labels_of(small_workspace)
    logits = 3 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    given = {
        "logits": logits,
        "probs": logits.softmax(1),
        "log_probs": logits.log_softmax(1),
    }
    wanted = columns_of(small_workspace, record(small_workspace, "logits", logits, labels))
    for outputs in ("probs", "log_probs"):
        found = columns_of(small_workspace, record(small_workspace, outputs, given[outputs], labels, outputs))
        for column in wanted.keys() - {"logit_given"}:
            assert np.allclose(found[column], wanted[column], atol=2e-5), (outputs, column)
        assert np.allclose(found["logit_given"], logits.log_softmax(1)[torch.arange(200), labels], atol=2e-5)


def test_what_a_margin_is_where_a_probability_is_zero(small_workspace):
    labels = labels_of(small_workspace)
    probs = torch.nn.functional.one_hot(labels, 10).double()
    probs[1] = 0
    probs[1, (labels[1] + 1) % 10] = 1
    probs[2] = 0.1 * torch.ones(10)
    probs[2, labels[2]] += 0.0005  # within the tolerance: taken as 0.1005 / 1.0005
    found = columns_of(small_workspace, record(small_workspace, "probs", probs, labels))
    largest = -np.log(np.finfo(np.float32).tiny)
    assert found["margin"][:2] == pytest.approx([largest, -largest], abs=1e-4) and largest == pytest.approx(87.3365)
    assert found["margin"][2] == pytest.approx(np.log(0.1005 / 0.1), abs=1e-6)
    assert found["p_given"][:3] == pytest.approx([1, 0, 0.1005 / 1.0005], abs=1e-6)
    log_probs = probs.log()
    assert torch.isinf(log_probs).any()
    again = columns_of(small_workspace, record(small_workspace, "log_probs", log_probs, labels, "logs"))
    assert all(np.allclose(again[column], found[column], atol=1e-6) for column in found)


@pytest.mark.parametrize(
    ("outputs", "row", "message"),
    [
        (
            "probs",
            [0.5, 0.502] + [0] * 8,
            r"probs of sample 7 sum to 1.002, the smallest is 0; allowed: 0 or more, with a",
        ),
        ("probs", [1.5, -0.5] + [0] * 8, "sum to 1, the smallest is -0.5"),
        ("probs", [float("nan")] + [0.1] * 9, "sum to nan"),
        ("log_probs", [0.0] * 10, "log_probs of sample 7 sum to 10"),
        ("log_probs", [float("inf")] + [0.0] * 9, "sum to inf"),
    ],
)
def test_what_is_no_probability_is_refused(small_workspace, outputs, row, message):
    before = small_workspace.run_ids()
    with (
        pytest.raises(ScoreInputError, match=message),
        Recorder(small_workspace.root, "small", outputs=outputs) as recorder,
    ):
        recorder.log(torch.tensor([row]), labels_of(small_workspace)[7:8], torch.tensor([7]))
    assert small_workspace.run_ids() == before and leftovers(small_workspace) == []
    with pytest.raises(SpecError, match="unknown outputs 'prob'; did you mean 'probs'"):
        Recorder(small_workspace.root, "small", outputs="prob")


@pytest.mark.parametrize(
    "row",
    [
        [float("inf")] + [0.0] * 9,
        [float("-inf")] + [0.0] * 9,
        [float("inf")] * 10,
        [3e38, -3e38] + [0.0] * 8,  # each finite, their margin not
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_infinity_is_recorded(small_workspace, recorder, row, dtype):
    logits = torch.zeros(200, 10, dtype=dtype)
    logits[7] = torch.tensor(row)
    with pytest.raises(ScoreInputError, match="the logits of sample 7 are not finite, or too far apart"):
        recorder.log(logits, recorder.labels, torch.arange(200))
        recorder.end_epoch()


def test_a_float64_logit_beyond_float32_is_refused(small_workspace, recorder):
    logits = torch.zeros(200, 10, dtype=torch.float64)
    logits[4, 2] = 1e300
    with pytest.raises(ScoreInputError, match="the logits of sample 4 are not finite"):
        recorder.log(logits, recorder.labels, torch.arange(200))
        recorder.end_epoch()


def test_infinite_logits_are_refused(small_workspace, recorder):
    logits = torch.zeros(200, 10)
    logits[3, 2] = float("inf")
    recorder.log(logits, labels_of(small_workspace), torch.arange(200))
    with pytest.raises(ScoreInputError, match="the logits of sample 3 are not finite"):
        recorder.end_epoch()


def test_a_recorder_that_nobody_closes_leaves_nothing(small_workspace):
    recorder = Recorder(small_workspace.root, "small")
    recorder.log(torch.zeros(200, 10), labels_of(small_workspace), torch.arange(200))
    recorder.end_epoch()
    assert len(leftovers(small_workspace)) == 1
    del recorder
    gc.collect()
    assert leftovers(small_workspace) == []


def test_a_loader_that_shuffles_carries_ids(small_workspace):
    labels = labels_of(small_workspace)
    images = torch.arange(200.0)[:, None].expand(200, 10)
    loader = DataLoader(WithIds(TensorDataset(images, labels)), batch_size=64, shuffle=True)
    with Recorder(small_workspace.root, "small") as recorder:
        for inputs, given, sample_ids in loader:
            assert torch.equal(inputs[:, 0].long(), sample_ids) and torch.equal(given, labels[sample_ids])
            recorder.log(inputs, given, sample_ids)
        recorder.end_epoch()
    assert list(columns_of(small_workspace, recorder.close())["logit_given"]) == list(range(200))


def test_ids_go_with_items_of_any_form():
    assert WithIds(["a", "b"])[1] == ("b", 1)
    assert WithIds([("a", 3)], ids=[7])[0] == ("a", 3, 7)
    assert WithIds([{"labels": 3}], ids=torch.tensor([7]))[0] == {"labels": 3, "sample_ids": 7}
    half = Subset(TensorDataset(torch.arange(10)), [8, 2])
    assert [int(sample_id) for _, sample_id in (WithIds(half, half.indices)[i] for i in range(2))] == [8, 2]
    batch = next(iter(DataLoader(WithIds([{"labels": 3}, {"labels": 4}], ids=np.array([5, 6])), batch_size=2)))
    assert batch["sample_ids"].dtype == torch.int64 and batch["sample_ids"].tolist() == [5, 6]
    with pytest.raises(ScoreInputError, match=r"ids has shape \(3,\); allowed: \(2,\)"):
        WithIds(["a", "b"], ids=[0, 1, 2])
    with pytest.raises(ScoreInputError, match="ids holds -1"):
        WithIds(["a", "b"], ids=[0, -1])
    with pytest.raises(ScoreInputError, match=r"ids holds 0.0 \(float64\); allowed: whole numbers from 0"):
        WithIds(["a", "b"], ids=[0.0, 1.0])
