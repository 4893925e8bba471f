"""The address that a run begins with may be an older one than the last that was written: the browser is behind."""

from __future__ import annotations

import json

import pytest
from streamlit.testing.v1 import AppTest

FIRST = {"dataset": "digits", "page": "2"}
CORNERS = "0,0 1,0 1,1"


def script() -> None:
    import json

    import streamlit as st

    from dashboard import state

    st.button("outline", on_click=lambda: state.put(region="0,0 1,0 1,1"))
    st.button("next", on_click=lambda: state.put(page=3))
    st.button("nothing")
    if st.button("outline and again", on_click=lambda: state.put(region="0,0 1,0 1,1")):
        st.rerun()
    st.code(json.dumps(state.chosen()))


@pytest.fixture
def app() -> AppTest:
    return at(AppTest.from_function(script), FIRST).run()


def at(app: AppTest, address: dict[str, str]) -> AppTest:
    """What the browser shows as its address when it sends the next event."""
    app.query_params.clear()
    app.query_params.update(address)
    return app


def press(app: AppTest, button: str) -> dict[str, str]:
    """What is chosen after a click."""
    next(b for b in app.button if b.label == button).click().run()
    assert not app.exception
    found: dict[str, str] = json.loads(app.code[0].value)
    assert {n: v if isinstance(v, str) else v[-1] for n, v in app.query_params.items()} == found
    return found


def test_what_was_chosen_outlives_runs_that_begin_with_the_address_before_it(app: AppTest) -> None:
    assert press(app, "outline") == {**FIRST, "region": CORNERS}
    at(app, FIRST)  # sent before the browser had the address with the outline
    assert press(app, "next") == {"dataset": "digits", "page": "3", "region": CORNERS}
    at(app, {**FIRST, "region": CORNERS})  # and one between the two
    assert press(app, "nothing") == {"dataset": "digits", "page": "3", "region": CORNERS}


def test_a_run_that_the_server_starts_itself_does_not_say_what_the_browser_has(app: AppTest) -> None:
    now = press(app, "outline and again")
    assert now == {**FIRST, "region": CORNERS}
    assert press(at(app, FIRST), "nothing") == now


def test_an_address_that_was_never_left_counts(app: AppTest) -> None:
    press(app, "outline")
    assert press(at(app, {"dataset": "other"}), "nothing") == {"dataset": "other"}


def test_a_page_without_an_address_goes_on_with_what_was_chosen(app: AppTest) -> None:
    now = press(app, "outline")
    at(app, {})
    next(b for b in app.button if b.label == "nothing").click().run()
    assert json.loads(app.code[0].value) == now
