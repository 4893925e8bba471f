"""Methods that propose labels: each against values worked out by hand, and what all of them must keep."""

import pytest
import torch

from engine.errors import ScoreInputError, SpecError
from engine.relabel import methods
from engine.relabel.registry import RELABEL_INPUTS, Relabeling, all_learners, all_methods, find_method, propose, relabel

CLASSES = 4


def inputs(n=50, seed=3):
    generator = torch.Generator().manual_seed(seed)
    learned = torch.softmax(3 * torch.randn(2, n, CLASSES, generator=generator), 2)
    reached = torch.rand(2, n, generator=generator) < 0.8
    counts = torch.randint(0, 9, (n, CLASSES), generator=generator).float() + 0.5
    return {
        "votes": counts / counts.sum(1, keepdim=True),
        "neighbor_ids": torch.stack([torch.randperm(n, generator=generator)[:7] for _ in range(n)]),
        "labels": torch.randint(0, CLASSES, (n,), generator=generator),
        "classes": CLASSES,
        "learned": torch.where(reached[:, :, None], learned, 0.0),
        "reached": reached,
    }


def permuted(given, order):
    """The same with class c called order[c]."""
    back = torch.argsort(order)
    return given | {
        "votes": given["votes"][:, back],
        "labels": order[given["labels"]],
        "learned": given["learned"][:, :, back],
    }


@pytest.mark.parametrize("name", all_methods())
def test_another_numbering_of_the_classes_numbers_the_proposals_alike(name):
    order = torch.tensor([2, 0, 3, 1])
    at, proposed, confidence = propose(find_method(name), inputs(), inputs()["labels"])
    renamed = permuted(inputs(), order)
    again, other, same = propose(find_method(name), renamed, renamed["labels"])
    assert len(at) and torch.equal(again, at)
    assert torch.equal(other, order[proposed]) and torch.allclose(same, confidence)


@pytest.mark.parametrize("name", all_methods())
def test_what_is_proposed_is_another_label_with_a_confidence(name):
    given, untouched = inputs(), inputs()
    at, proposed, confidence = propose(find_method(name), given, given["labels"])
    assert at.tolist() == sorted(set(at.tolist()))
    assert bool((proposed != given["labels"][at]).all()) and bool(((confidence > 0) & (confidence <= 1)).all())
    for key, value in untouched.items():
        assert value == given[key] if key == "classes" else torch.equal(value, given[key])


@pytest.mark.parametrize("name", all_methods())
def test_every_method_says_where_it_comes_from_and_reads_no_truth(name):
    found = find_method(name)
    assert found.title and found.source and set(found.inputs) <= set(RELABEL_INPUTS)
    assert not any("true" in one for one in RELABEL_INPUTS)
    assert not found.learner or found.learner in all_learners()


def test_vote_proposes_the_majority_and_a_tie_proposes_nothing():
    votes = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    at, proposed, confidence = propose(find_method("vote"), {"votes": votes}, torch.tensor([0, 1, 1]))
    assert at.tolist() == [0, 2] and proposed.tolist() == [1, 0]
    assert confidence.tolist() == pytest.approx([0.8, 0.9])


def test_neighbors_count_the_given_labels_of_the_nearest():
    ids = torch.tensor([[1, 2, 3], [0, 2, 3], [1, 0, 3], [0, 1, 2]])
    labels = torch.tensor([0, 1, 1, 1])
    found = methods.neighbors(ids, labels, 3)
    third = 1 / 3
    expected = torch.tensor([[0, 1.0, 0], [third, 2 * third, 0], [third, 2 * third, 0], [third, 2 * third, 0]])
    torch.testing.assert_close(found, expected)
    assert propose(find_method("neighbors"), {"neighbor_ids": ids, "labels": labels, "classes": 3}, labels)[
        0
    ].tolist() == [0]


@pytest.mark.parametrize("name", ["sop+", "dividemix", "debug", "rop"])
def test_seeds_count_where_they_were_asked(name):
    """Sample 0 in both seeds, 1 in the second alone, 2 in none: of that nothing is said."""
    learned = torch.tensor([[[0.9, 0.1], [0.0, 0.0], [0.0, 0.0]], [[0.5, 0.5], [0.25, 0.75], [0.0, 0.0]]])
    reached = torch.tensor([[True, False, False], [True, True, False]])
    found = find_method(name).function(learned, reached)
    torch.testing.assert_close(found, torch.tensor([[0.7, 0.3], [0.25, 0.75], [0.0, 0.0]]))
    at, proposed, _ = propose(find_method(name), {"learned": learned, "reached": reached}, torch.tensor([1, 0, 1]))
    assert at.tolist() == [0, 1] and proposed.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("opinion", "message"),
    [
        (torch.tensor([[0.2, 0.8], [0.1, 1.2]]), "gave sample 1 the confidence 1.2; allowed: 0 to 1"),
        (torch.tensor([[0.2, float("nan")], [0.1, 0.2]]), "gave sample 0 the confidence nan"),
        (torch.tensor([[-0.5, 0.4], [0.1, 0.2]]), "gave sample 0"),
        (torch.tensor([[0.2, 0.8]]), r"gave shape \(1, 2\) for 2 samples"),
    ],
)
def test_a_confidence_outside_its_range_is_refused(opinion, message):
    broken = Relabeling("broken", "Breaks", lambda votes: votes, "nowhere", "", (), ("votes",))
    with pytest.raises(ScoreInputError, match=message):
        propose(broken, {"votes": opinion}, torch.tensor([0, 0]))


def test_names_are_looked_up_with_the_nearest():
    with pytest.raises(SpecError, match="unknown method 'voet'; did you mean 'vote'"):
        find_method("voet")
    with pytest.raises(TypeError, match="reads true_labels; allowed: votes"):
        relabel(source="nowhere")(lambda true_labels: true_labels)
