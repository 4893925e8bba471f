"""Names of orders: one syntax, and a clear word on what does not fit it."""

import pytest

from engine.errors import SpecError
from engine.selection.names import Order, parse_order, split_orders


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("el2n", Order("ascending", "el2n")),
        ("el2n*", Order("descending", "el2n")),
        ("el2n@5*", Order("descending", "el2n@5")),
        ("random", Order("random")),
        ("oracle", Order("oracle")),
        ("kcenter", Order("kcenter")),
        ("ccs(nli)", Order("ccs", "nli")),
        ("ccs(nli,beta=0.2,strata=20)", Order("ccs", "nli", {"beta": 0.2, "strata": 20})),
        ("craig(neighbors=64)", Order("craig", "", {"neighbors": 64})),
        ("window(el2n@5,offset=0.05)", Order("window", "el2n@5", {"offset": 0.05})),
    ],
)
def test_orders_are_parsed(name, order):
    assert parse_order(name) == order


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "order ''; allowed: random, oracle"),
        ("*", "order"),
        ("el2n**", "order"),
        ("el2n*x", "order"),
        ("ccs(nli", "order"),
        ("random*", "random has no reverse"),
        ("oracle*", "oracle has no reverse"),
        ("ccs(nli)*", "order"),
        ("ccs", r"write ccs\(SCORE\), such as ccs\(el2n\)"),
        ("cccs(nli)", "unknown sampler 'cccs'; did you mean 'ccs'"),
        ("ccs()", "names 0 scores; ccs takes one"),
        ("ccs(a,b)", "names 2 scores; ccs takes one"),
        ("kcenter(nli)", "names 1 scores; kcenter takes no score"),
        ("ccs(nli,bta=1)", "unknown option of ccs 'bta'; did you mean 'beta'"),
        ("ccs(nli,beta=much)", "option beta of order .* is 'much'; it must be a number"),
        ("ccs(nli,strata=2.5)", "it must be a whole number"),
    ],
)
def test_a_malformed_order_is_refused(name, said):
    with pytest.raises(SpecError, match=said):
        parse_order(name)


def test_a_list_is_split_outside_parentheses():
    assert split_orders("random, ccs(nli, beta=0.2),el2n*,,random") == ("random", "ccs(nli,beta=0.2)", "el2n*")
    assert split_orders(" ") == ()
