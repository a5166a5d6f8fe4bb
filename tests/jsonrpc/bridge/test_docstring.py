"""The descriptions of parameters in docstrings."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.jsonrpc.bridge.docstring import parameter_descriptions

STYLES = {
    "google": """Do it.

    More of it.

    Args:
        one: the first,
            and its second line.
        two (dict[str, int], optional): the second.
        three, *rest: what is left:
            all of it.

        **named: by name.
        four:
            On a line of its own.

    Returns:
        one: not this one.
    """,
    "numpy": """Do it.

    Parameters
    ----------
    one : int
        the first,
        and its second line.
    two
        the second.
    three, *rest : list of int, optional
        what is left: all of it.
    **named
        by name.

    four: x
        On a line of its own.

    Returns
    -------
    one : int
        not this one.
    """,
    "sphinx": """Do it.

    :param one: the first,
        and its second line.
    :param dict two: the second.
    :param three: what is left: all of it.
    :type three: int
    :param rest: what is left: all of it.
    :keyword named: by name.
    :param four:
        On a line of its own.
    :returns: one: not this one.
    """,
}


@pytest.mark.parametrize("style", STYLES)
def test_descriptions(style: str) -> None:
    doc = inspect.cleandoc(STYLES[style])
    assert parameter_descriptions(doc) == {
        "one": "the first, and its second line.",
        "two": "the second.",
        "three": "what is left: all of it.",
        "rest": "what is left: all of it.",
        "named": "by name.",
        "four": "On a line of its own.",
    }


@pytest.mark.parametrize("doc", ["", "Args:", "Args:\n\n", "Parameters\n---", ":param", "Args:\na"])
def test_docstrings_without_descriptions(doc: str) -> None:
    assert parameter_descriptions(doc) == {}


@given(st.text(alphabet="Args:\n ab()-,*", max_size=200))
def test_any_docstring(doc: str) -> None:
    parameter_descriptions(doc)
