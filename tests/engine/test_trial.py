"""The trial: which network suits a dataset and for how many epochs; measured once, kept with the dataset."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from engine.data.loader import Samples, load_split
from engine.errors import Cancelled, StorageError
from engine.queries.connection import fetch_fingerprint
from engine.runs.trial import Choice, choose_epochs, choose_network, epochs_of_whole, shrink, try_networks
from engine.spec import TrainingSpec

CPU = torch.device("cpu")


def telling(samples, strength=4.0):
    """Features that tell the true classes apart: one column each, with noise."""
    truth = samples.true_labels
    generator = torch.Generator().manual_seed(0)

    def features_of(ids, progress):
        rows = torch.nn.functional.one_hot(truth[ids], samples.classes).float() * strength
        return rows + torch.randn(rows.shape, generator=generator)

    return features_of


def noise(ids, progress):
    return torch.randn(len(ids), 20, generator=torch.Generator().manual_seed(0))


def never(ids, progress):
    raise AssertionError("features were computed")


def kept(workspace, **changes):
    """Write the choice that a trial would have kept for `small`, with some values changed."""
    choice = Choice("lenet", "", 7, {"lenet": 0.5, "head on made": 0.25}, 200, 40)
    content = {"version": 1, "fingerprint": fetch_fingerprint(workspace, "small"), **asdict(choice), **changes}
    workspace.trial_path("small").write_text(json.dumps(content))
    return choice


@pytest.fixture
def samples(small_workspace):
    return load_split(small_workspace, "small", "train")


def test_the_epoch_before_memorizing():
    # best .80 on 400: a standard error of .02, so .781 is as good and .779 is not
    assert choose_epochs([0.60, 0.77, 0.781, 0.80, 0.78], 400) == 3
    assert choose_epochs([0.60, 0.77, 0.779, 0.80, 0.78], 400) == 4
    # the figures of a head on 2,000 photographs with 8 % wrong labels: its ranking is best after 3 to 5 epochs
    assert choose_epochs([0.638, 0.656, 0.668, 0.675, 0.679, 0.683, 0.683, 0.685, 0.688, 0.682], 500) == 3
    # one that never gets better than at first, one that does to the end, and perfect ones
    assert choose_epochs([0.5, 0.5, 0.4], 100) == 1
    assert choose_epochs([0.1, 0.2, 0.9], 100) == 3
    assert choose_epochs([0.9, 1.0, 1.0], 100) == 2
    assert choose_epochs([0.0], 10) == 1


def test_epochs_of_the_whole_lie_between_as_many_epochs_and_as_many_steps():
    assert epochs_of_whole(8, 2000, 2000) == 8
    assert epochs_of_whole(10, 2000, 8000) == 5  # as many epochs: 10, as many steps: 2.5
    assert epochs_of_whole(8, 2000, 50_000) == 4  # never fewer


def test_the_better_network_wins(samples):
    on_images = try_networks(samples, "made", noise)
    on_features = try_networks(samples, "made", telling(samples))
    assert (on_images.model, on_images.features) == ("lenet", "")
    assert (on_features.model, on_features.features) == ("head", "made")
    assert on_images.accuracies["lenet"] == on_features.accuracies["lenet"] > on_images.accuracies["head on made"]
    assert on_features.accuracies["head on made"] > on_features.accuracies["lenet"]
    assert (on_images.samples, on_images.held_out) == (200, 40)
    assert "lenet" in on_images.sentence and f"{on_images.epochs} epochs" in on_images.sentence
    for choice in (on_images, on_features):
        assert TrainingSpec(**choice.training).epochs == choice.epochs


def test_true_labels_are_not_read(samples):
    """What is measured are the given labels, one in five of which is wrong here: nothing reaches much more than .8."""
    features_of = telling(samples, 10.0)
    choice = try_networks(samples, "made", features_of)
    blind = try_networks(replace(samples, true_labels=None), "made", telling(samples, 10.0))
    assert choice == blind and max(choice.accuracies.values()) < 0.9


def test_vectors_are_tried_on_themselves():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1200, 8, generator=generator)
    straight = (inputs[:, 0] > 0).long()
    crossed = ((inputs[:, 0] > 0) ^ (inputs[:, 1] > 0)).long()  # which no linear network tells apart
    found = [try_networks(Samples(inputs, y, torch.arange(1200), 2, None), "made", never) for y in (straight, crossed)]
    assert list(found[0].accuracies) == ["linear", "head", "mlp"]
    assert found[0].accuracies["linear"] > 0.9
    assert found[1].model in ("head", "mlp") and found[1].accuracies["linear"] < 0.7 < max(found[1].accuracies.values())
    assert all(choice.features == "" for choice in found)


def test_large_images_are_shrunk_for_the_trial():
    """Squares of 2 x 2 pixels of one value each: their means are the image of half the side."""
    small = torch.randint(0, 256, (2, 3, 32, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(shrink(large), small) and shrink(small) is small
    uneven = torch.full((1, 1, 65, 33), 200, dtype=torch.uint8)
    assert shrink(uneven).shape == (1, 1, 22, 11) and (shrink(uneven) == 200).all()


def test_the_choice_does_not_depend_on_the_threads(samples):
    before = torch.get_num_threads()
    found = []
    for count in (1, 4):
        torch.set_num_threads(count)
        try:
            found.append(try_networks(samples, "made", noise))
        finally:
            torch.set_num_threads(before)
    assert found[0] == found[1]


def test_too_few_samples_to_measure(samples):
    choice = try_networks(samples.subset(torch.arange(30)), "made", never)
    assert choice.accuracies == {} and choice.model == "head" and choice.features == "made"
    assert "too few samples" in choice.sentence


def test_the_choice_is_kept_and_removed_with_the_dataset(small_workspace, samples):
    first = choose_network(small_workspace, "small", CPU, features="made", features_of=noise)
    path = small_workspace.trial_path("small")
    assert path.exists() and small_workspace.datasets() == ["small"]
    assert choose_network(small_workspace, "small", CPU, features="made", features_of=never) == first
    assert first.epochs != 7
    assert kept(small_workspace) == choose_network(small_workspace, "small", CPU, features="made", features_of=never)
    small_workspace.remove_dataset("small")
    assert not path.exists()


@pytest.mark.parametrize("change", [{"version": 99, "unknown": 1}, {"version": None}, {"fingerprint": "of other data"}])
def test_the_choice_of_other_data_or_another_version_is_made_anew(small_workspace, change):
    kept(small_workspace, **change)
    with pytest.raises(AssertionError, match="features were computed"):
        choose_network(small_workspace, "small", CPU, features="made", features_of=never)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": "many"},
        {"epochs": 0},
        {"model": "resnet999"},
        {"accuracies": [1]},
        {"accuracies": {"lenet": 7}},
        {"features": None},
        {"held_out": None},
    ],
)
def test_a_damaged_choice_is_refused(small_workspace, change):
    kept(small_workspace, **change)
    with pytest.raises(StorageError, match="is damaged; remove it"):
        choose_network(small_workspace, "small", CPU, features="made", features_of=noise)


@pytest.mark.parametrize("text", ["", "[]", "3", "{"])
def test_a_choice_that_is_none_is_refused(small_workspace, text):
    small_workspace.trial_path("small").write_text(text)
    with pytest.raises(StorageError, match="damaged|not valid JSON"):
        choose_network(small_workspace, "small", CPU, features="made", features_of=noise)


def test_a_trial_tells_how_far_it_is_and_can_be_stopped(small_workspace, samples):
    shares = []
    try_networks(samples, "made", noise, lambda stage, share, left: shares.append(share))
    assert shares == sorted(shares) and 0.5 < shares[0] < 0.6 and 0.9 < shares[-1] <= 1

    def stop(stage, share, left):
        if share > 0.5:
            raise Cancelled()

    with pytest.raises(Cancelled):
        choose_network(small_workspace, "small", CPU, stop, features="made", features_of=noise)
    assert not small_workspace.trial_path("small").exists()


def test_a_choice_says_what_it_was_made_of():
    choice = Choice("lenet", "", 4, {"lenet": 0.907, "head on efficientnet_lite0": 0.846}, 2500, 500)
    assert choice.sentence == (
        "held-out accuracy on 500 of 2,500 samples, by their given labels: lenet 90.7 %, "
        "head on efficientnet_lite0 84.6 %; so lenet, 4 epochs"
    )
