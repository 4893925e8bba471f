"""Names of orders: one syntax, and a clear word on what does not fit it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SpecError
from engine.selection.names import Order, parse_order, sampler_help, scoreless, split_orders
from engine.selection.samplers import SAMPLER_INPUTS, all_samplers


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


@pytest.mark.parametrize(
    ("text", "name", "reverse", "draws_as"),
    [
        ("el2n@5", "el2n@5", False, "el2n@5"),
        ("el2n@5*", "el2n@5*", True, "el2n@5"),
        ("ascending(nli)", "nli", False, "ascending(nli)"),
        ("kcenter", "kcenter", False, "kcenter"),
        ("kcenter()", "kcenter", False, "kcenter()"),
        ("ccs(nli,strata=20,beta=0.20)", "ccs(nli,beta=0.2,strata=20)", False, "ccs(nli,strata=20,beta=0.20)"),
        ("window( el2n ,offset=.05)", "window(el2n,offset=0.05)", False, "window( el2n ,offset=.05)"),
    ],
)
def test_an_order_has_one_name_and_draws_as_it_was_written(text, name, reverse, draws_as):
    order = parse_order(text)
    assert (order.name, order.reversed, order.draws_as) == (name, reverse, draws_as)
    assert parse_order(order.name) == order


@st.composite
def orders(draw):
    found = all_samplers()[draw(st.sampled_from(sorted(all_samplers())))]
    score = draw(st.sampled_from(["el2n", "nli@3", "cg"])) if found.reads_score else ""
    numbers = {int: st.integers(0, 10**9), float: st.floats(-1e9, 1e9)}
    given_options = draw(st.sets(st.sampled_from(sorted(found.options)))) if found.options else ()
    options = {name: draw(numbers[type(found.options[name])]) for name in found.options if name in given_options}
    return Order(found.name, score, options)


@given(orders())
def test_the_name_of_an_order_is_read_as_that_order(order):
    again = parse_order(order.name)
    assert again == order and again.name == order.name


def test_the_help_is_that_of_the_samplers():
    rows = {row["name"]: row for row in sampler_help()}
    assert set(rows) == set(all_samplers())
    assert rows["ccs"]["form"] == "ccs(SCORE,beta=0,strata=50)" and rows["ccs"]["options"] == {
        "beta": 0.0,
        "strata": 50,
    }
    assert rows["descending"]["form"] == "SCORE*" and rows["oracle"]["form"] == "oracle"
    assert rows["pr4rel"]["form"] == "pr4rel(threshold=0.975,neighbors=512)"
    assert all(row["title"] and set(row["reads"]) <= set(SAMPLER_INPUTS) for row in rows.values())
    assert set(scoreless()) >= {"random", "oracle", "moderate", "kcenter", "craig", "pr4rel", "fdmat"}
    assert not {"ascending", "descending", "window", "ccs"} & set(scoreless())
