"""Stratified draws: exact counts, every class its share, the same for the same seed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.data.splits import stratified

labels_and_count = st.lists(st.integers(0, 7), min_size=1, max_size=200).flatmap(
    lambda labels: st.tuples(st.just(np.array(labels, np.int64)), st.integers(0, len(labels)))
)


@given(labels_and_count, st.integers(0, 2**32))
def test_exactly_the_count_and_every_class_its_share(given_labels, seed):
    labels, count = given_labels
    drawn = stratified(labels, count, seed)
    assert len(drawn) == count and (np.diff(drawn) > 0).all()
    sizes = np.bincount(labels, minlength=8)
    shares = sizes * (count / len(labels))
    assert (np.abs(np.bincount(labels[drawn], minlength=8) - shares) < 1).all()
    np.testing.assert_array_equal(drawn, stratified(labels, count, seed))


@given(labels_and_count, st.integers(0, 2**32))
def test_one_of_every_class_is_left_where_asked(given_labels, seed):
    labels, count = given_labels
    drawn = stratified(labels, count, seed, keep_one=True)
    assert len(drawn) == min(count, len(labels) - len(set(labels.tolist())))
    assert set(np.delete(labels, drawn).tolist()) == set(labels.tolist())


def test_which_samples_is_left_to_the_seed():
    labels = np.zeros(100, np.int64)
    assert (stratified(labels, 50, 0) != stratified(labels, 50, 1)).any()
