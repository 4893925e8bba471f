"""The networks that a run publishes, found and loaded again."""

import pytest

from engine.data.loader import load_split, normalization
from engine.errors import StorageError
from engine.runs.compute import compute
from engine.runs.planning import plan_run
from engine.store.tensors import load_tensors
from engine.training.kept import load_network, stored_epochs, weights_file
from engine.training.loop import Normalization, compute_accuracy


def test_a_published_network_is_the_one_that_was_trained(small_workspace, small_training):
    training = small_training(epochs=12)
    spec = plan_run(small_workspace, "small", ["nli@2"], training, threshold_rounds=0)
    run_id, _ = compute(small_workspace, spec, "cpu")
    folder = small_workspace.published_dir(run_id)
    assert {2, 10, 12} <= set(stored_epochs(folder, 12)) and stored_epochs(folder, 12)[-1] == 12
    samples, test = (load_split(small_workspace, "small", split) for split in ("train", "test"))
    shape = tuple(samples.inputs.shape[1:])
    networks = [load_network(folder, training, shape, 10, seed, 12) for seed in range(2)]
    for seed, network in enumerate(networks):
        stored = load_tensors(folder / weights_file(12, 12))[0]
        assert not network.training
        for name, values in network.state_dict().items():
            assert values.flatten().tolist() == stored[f"seed{seed}.{name}"].flatten().tolist()
    assert compute_accuracy(networks[0], test, Normalization(*normalization(samples))) > 0.6
    with pytest.raises(
        StorageError, match=r"weights-epoch2.safetensors does not hold the weights of seed 1 after epoch"
    ):
        load_network(folder, training, shape, 10, 1, 2)  # nli reads the first network alone
    with pytest.raises(StorageError, match=r"weights-epoch3.safetensors does not hold .* remove that run"):
        load_network(folder, training, shape, 10, 0, 3)
