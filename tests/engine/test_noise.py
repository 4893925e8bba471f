"""Label noise: exact counts, no label left as it was among the changed, reproducible, others untouched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import noise
from engine.data.noise import apply_noise, noise_help, noise_kind, parse_noise, superclasses_of, transition_matrix
from engine.errors import SpecError

label_sets = st.integers(2, 12).flatmap(
    lambda c: st.tuples(st.lists(st.integers(0, c - 1), min_size=1, max_size=300), st.just(c))
)
rates = st.floats(0, 1, allow_nan=False)
seeds = st.integers(0, 2**32)


@given(label_sets, rates, seeds, st.sampled_from(["symmetric", "asymmetric"]))
def test_changes_exactly_the_share_and_gives_another_class(labels_classes, rate, seed, kind):
    labels, classes = np.array(labels_classes[0], np.int64), labels_classes[1]
    before = labels.copy()
    noisy = apply_noise(f"{kind}:{rate!r}", labels, classes, seed)
    assert (noisy != labels).sum() == round(rate * len(labels))
    assert noisy.min() >= 0 and noisy.max() < classes and noisy.dtype == np.int64
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(noisy, apply_noise(f"{kind}:{rate!r}", labels, classes, seed))


@given(label_sets, rates, seeds)
def test_asymmetric_goes_to_the_next_class(labels_classes, rate, seed):
    labels, classes = np.array(labels_classes[0], np.int64), labels_classes[1]
    noisy = apply_noise(f"asymmetric:{rate!r}", labels, classes, seed)
    changed = noisy != labels
    np.testing.assert_array_equal(noisy[changed], (labels[changed] + 1) % classes)


def test_symmetric_reaches_every_other_class_equally_often():
    noisy = apply_noise("symmetric:1", np.full(90_000, 3, np.int64), 10, 0)
    counts = np.bincount(noisy, minlength=10)
    assert counts[3] == 0
    # 9 classes, 10,000 expected, standard deviation 94
    assert np.abs(np.delete(counts, 3) - 10_000).max() < 400


def test_another_seed_gives_other_samples():
    labels = np.zeros(1000, np.int64)
    first, second = (apply_noise("symmetric:0.5", labels, 5, seed) for seed in (0, 1))
    assert (first != second).any()


def test_twice_is_one_after_the_other_each_drawn_on_its_own():
    labels = np.zeros(1000, np.int64)
    both = apply_noise("asymmetric:0.3+asymmetric:0.3", labels, 10, 7)
    # 300 + 300 changes; were both drawn alike, there would be 300 labels 2 and none 1
    counts = np.bincount(both, minlength=3)
    assert counts.sum() == 1000 and counts[1] + 2 * counts[2] == 600
    assert 50 < counts[2] < 130  # 90 expected
    once = apply_noise("asymmetric:0.3", labels, 10, 7)
    np.testing.assert_array_equal(both[once == 1] >= 1, True)


def test_superclass_stays_within_the_group():
    groups = [0, 0, 1, 1, 1]
    labels = np.arange(5).repeat(200)
    noisy = apply_noise("superclass:0.5", labels, 5, 0, groups)
    assert (noisy != labels).sum() == 500
    np.testing.assert_array_equal(np.array(groups)[noisy], np.array(groups)[labels])
    assert {int(v) for v in noisy[labels == 2]} == {2, 3, 4}


def test_cifar100_has_20_superclasses_of_5():
    from engine.data.noise import _CIFAR100

    names = sorted(name for group in _CIFAR100 for name in group.split())
    assert len(names) == len(set(names)) == 100
    groups = superclasses_of(names)
    assert np.bincount(groups).tolist() == [5] * 20
    assert groups[names.index("maple_tree")] == groups[names.index("oak_tree")]
    assert superclasses_of(["cat", "dog"]) is None


def test_a_grouping_of_ones_own_by_names():
    assert superclasses_of(["cat", "car", "dog", "truck"], "cat, dog; car,truck") == [0, 1, 0, 1]
    for grouping, said in (
        ("cat,dog;car", "class 'truck' is in none of the --superclasses"),
        ("cat,dog;car,truck,cat", "class 'cat' is in --superclasses twice"),
        ("cat,dig;car,truck", "unknown class 'dig'; did you mean 'dog'"),
    ):
        with pytest.raises(SpecError, match=said):
            superclasses_of(["cat", "car", "dog", "truck"], grouping)


def test_instance_changes_what_networks_confuse_most_into_what_they_confuse_it_with():
    labels = np.array([0, 0, 1, 2], np.int64)
    seen = np.array([[0, 0.1, 0.3], [0, 0.6, 0.1], [0.2, 0, 0.1], [0.4, 0.5, 0]])
    # the most likely other class: 2 (0.3), 1 (0.6), 0 (0.2), 1 (0.5); of four samples a half are changed
    assert apply_noise("instance:0.5", labels, 3, 0, confusions=seen).tolist() == [0, 1, 1, 1]
    assert apply_noise("instance:1", labels, 3, 0, confusions=seen).tolist() == [2, 1, 0, 1]
    # once more: sample 1 has label 1 now, so 2 is left to it (0.1), sample 3 has 1 and goes to 0 (0.4)
    assert apply_noise("instance:0.5+instance:0.5", labels, 3, 0, confusions=seen).tolist() == [2, 1, 1, 0]


@given(label_sets, rates, seeds)
def test_instance_is_exact_and_draws_only_ties(labels_classes, rate, seed):
    labels, classes = np.array(labels_classes[0], np.int64), labels_classes[1]
    drawn = np.random.default_rng(seed)
    seen = drawn.random((len(labels), classes))
    seen[np.arange(len(labels)), labels] = 0
    noisy = apply_noise(f"instance:{rate!r}", labels, classes, seed, confusions=seen)
    changed = noisy != labels
    assert changed.sum() == round(rate * len(labels)) and noisy.dtype == np.int64
    np.testing.assert_array_equal(noisy[changed], seen.argmax(1)[changed])
    if 0 < changed.sum() < len(labels):
        assert seen.max(1)[changed].min() >= seen.max(1)[~changed].max()
    flat = np.full((len(labels), classes), 0.5)  # all alike: which are changed is drawn
    assert (apply_noise(f"instance:{rate!r}", labels, classes, seed, confusions=flat) != labels).sum() == changed.sum()


def test_instance_after_another_noise_makes_no_label_right_where_another_class_is_left():
    truth = np.arange(3).repeat(100)
    seen = np.random.default_rng(0).random((300, 3))
    seen[np.arange(300), truth] = 0
    first = apply_noise("symmetric:0.4", truth, 3, 5)
    both = apply_noise("symmetric:0.4+instance:0.5", truth, 3, 5, confusions=seen)
    assert (both != first).sum() == 150 and ((first != truth) <= (both != truth)).all()


def test_ties_are_drawn_by_the_seed():
    labels, flat = np.zeros(100, np.int64), np.full((100, 2), 0.5)
    one, again, other = (apply_noise("instance:0.5", labels, 2, seed, confusions=flat) for seed in (0, 0, 1))
    assert (one == again).all() and (one != other).any()


def test_instance_without_predictions_is_refused():
    with pytest.raises(SpecError, match="instance noise needs the predictions of networks"):
        apply_noise("instance:0.5", np.zeros(10, np.int64), 3, 0)


def test_a_matrix_gives_each_class_its_shares_by_largest_remainder():
    labels = np.array([0] * 7 + [1] * 4 + [2] * 10, np.int64)
    rows = np.array([[0.5, 0.3, 0.2], [0.25, 0.5, 0.25], [0.0, 0.29, 0.71]])
    noisy = apply_noise("matrix:m.csv", labels, 3, 0, matrices={"m.csv": rows})
    # 7 samples: 3.5, 2.1, 1.4 -> 3, 2, 1 and the one left over to .5; 4: 1, 2, 1; 10: 0, 2.9, 7.1 -> 0, 3, 7
    assert transition_matrix(labels, noisy, 3).tolist() == [[4, 2, 1], [1, 2, 1], [0, 3, 7]]
    assert (apply_noise("matrix:m.csv", labels, 3, 0, matrices={"m.csv": rows}) == noisy).all()
    assert any((apply_noise("matrix:m.csv", labels, 3, s, matrices={"m.csv": rows}) != noisy).any() for s in (1, 2, 3))


def test_equal_remainders_go_to_the_class_itself_then_to_the_first():
    rows = {"m.csv": np.array([[0.5, 0.5, 0], [0.25, 0.5, 0.25], [1 / 3, 1 / 3, 1 / 3]])}
    labels = np.array([0, 1, 1, 2, 2], np.int64)
    counts = transition_matrix(labels, apply_noise("matrix:m.csv", labels, 3, 0, matrices=rows), 3)
    # one sample: .5 .5; two: .5, 1, .5; two: 2/3 each, so the class itself and the first of the others
    assert counts.tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]


@settings(max_examples=60)
@given(label_sets, seeds)
def test_any_matrix_is_followed_to_less_than_one_sample(labels_classes, seed):
    labels, classes = np.array(labels_classes[0], np.int64), labels_classes[1]
    rows = np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), classes)
    noisy = apply_noise("matrix:m.npy", labels, classes, seed, matrices={"m.npy": rows})
    counts, sizes = transition_matrix(labels, noisy, classes), np.bincount(labels, minlength=classes)
    np.testing.assert_array_equal(counts.sum(1), sizes)
    assert (np.abs(counts - sizes[:, None] * rows) < 1 + 1e-6).all()


def test_a_matrix_after_another_noise_reads_the_labels_that_are_there():
    rows = {"a+b.csv": np.array([[0.0, 1.0], [1.0, 0.0]])}
    assert apply_noise("asymmetric:1+matrix:a+b.csv", np.array([0, 1, 1]), 2, 0, matrices=rows).tolist() == [0, 1, 1]
    assert parse_noise("matrix:a+b.csv+symmetric:0.1") == [("matrix", "a+b.csv"), ("symmetric", 0.1)]


def test_transition_matrix_by_hand():
    true, given_labels = np.array([0, 0, 0, 1, 2]), np.array([0, 1, 1, 1, 0])
    assert transition_matrix(true, given_labels, 3).tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symmetric:1.5", "the rate of noise 'symmetric' is 1.5; allowed: 0 to 1 (write symmetric:0.2 for 20 %)"),
        ("symmetric:-0.1", "the rate of noise 'symmetric' is -0.1; allowed: 0 to 1 (write symmetric:0.2 for 20 %)"),
        ("symmetric:nan", "the rate of noise 'symmetric' is nan; allowed: 0 to 1 (write symmetric:0.2 for 20 %)"),
        ("symmetric", "the rate of noise 'symmetric' is missing; write symmetric:0.2 for 20 %"),
        ("symmetric:lots", "the rate of noise 'symmetric' is 'lots'; write symmetric:0.2 for 20 %"),
        ("matrix", "noise 'matrix' names no file; write matrix:FILE, a CSV or .npy file of C x C numbers"),
        (
            "symetric:0.2",
            "unknown noise 'symetric'; did you mean 'symmetric'? (it is written KIND:RATE, as in symmetric:0.2)",
        ),
    ],
)
def test_says_what_is_wrong(text, message):
    with pytest.raises(SpecError) as caught:
        parse_noise(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("groups", [None, [0, 0], [0, 0, 1]])
def test_superclass_without_fitting_groups_is_refused(groups):
    with pytest.raises(SpecError, match="super-class"):
        apply_noise("superclass:0.5", np.zeros(10, np.int64), 3, 0, groups)


def test_the_help_is_that_of_the_kinds():
    assert noise_help().startswith("symmetric:0.2, asymmetric:0.4, superclass:0.3")
    assert noise_help().endswith("; a+b for two")
    for part in noise_help().split(";")[0].split(", "):
        ((kind, rate),) = parse_noise(part)
        assert rate == noise.KINDS[kind].example and noise.KINDS[kind].title
    assert noise.reads("symmetric:0.1+superclass:0.2", "groups") and not noise.reads("symmetric:0.2", "groups")
    assert noise.reads("instance:0.2", "confusions") and not noise.reads(None, "confusions")


def test_a_kind_is_declared_where_it_is_written(monkeypatch):
    monkeypatch.setattr(noise, "KINDS", dict(noise.KINDS))

    @noise_kind(example=0.1)
    def backwards(labels, rate, classes, rng):
        """The class before."""
        return (labels - round(rate)) % classes

    assert ", backwards:0.1; a+b for two" in noise_help()
    assert apply_noise("backwards:1", np.array([0, 1, 2]), 3, 0).tolist() == [2, 0, 1]
    with pytest.raises(TypeError, match="noise backwards"):
        noise_kind(example=0.1)(backwards)
