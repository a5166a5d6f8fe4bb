import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.cli.annotation import (
    annotation_source,
    default_source,
    items_source,
    qualified_names,
    result_source,
)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        (None, "Any"),
        ("int", "int"),
        ("None", "None"),
        ("int | None", "int | None"),
        ("Optional[str]", "Optional[str]"),
        ("typing.Optional[str]", "Optional[str]"),
        ("t.List[int]", "list[int]"),
        ("Dict[str, Any]", "dict[str, Any]"),
        ("dict[str, list[int]]", "dict[str, list[int]]"),
        ("tuple[int, ...]", "tuple[int, ...]"),
        ("collections.abc.Sequence[int]", "Sequence[int]"),
        ("Callable[[int], str]", "Callable[[int], str]"),
        ("datetime", "datetime.datetime"),
        ("datetime.datetime", "datetime.datetime"),
        ("Decimal", "decimal.Decimal"),
        ("Literal['a', 1]", "Literal['a', 1]"),
        ("Literal[a]", "Any"),
        ("Order", "Any"),
        ("shop.Order | None", "Any | None"),
        ("list['Order']", "list[Any]"),
        ("'int'", "int"),
        ("list[Order]", "list[Any]"),
        ("list[]", "Any"),
        ("__import__('os').system('true')", "Any"),
        ("int if True else str", "Any"),
        ("lambda: 0", "Any"),
        ("(int)", "int"),
        ("int # no", "int"),
        ("int\nx", "Any"),
        ("\x00", "Any"),
        ("", "Any"),
        ("a" * 2000, "Any"),
        ("list[" * 199 + "int" + "]" * 199, "Any"),
        ("'\\d'", "Any"),
    ],
)
def test_annotations(text, source) -> None:
    assert annotation_source(text, {}) == source


def test_lists_in_results_are_sequences() -> None:
    assert result_source("list[list[int]] | None", {}) == "Sequence[Sequence[int]] | None"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("collections.abc.AsyncIterator[int]", "int"),
        ("AsyncGenerator[list[int], None]", "Sequence[int]"),
        ("AsyncIterator", "Any"),
        ("AsyncIterator[Order]", "Any"),
        ("Order[int]", "Any"),
        ("int", "Any"),
        (None, "Any"),
        ("AsyncIterator[()]", "Any"),
    ],
)
def test_items(text, source) -> None:
    assert items_source(text, {}) == source


def test_hidden_names() -> None:
    instead = qualified_names({"set", "list", "Any", "Sequence", "datetime", "divide"})
    assert annotation_source("set[int] | Order", instead) == "builtins.set[int] | typing.Any"
    assert result_source("list[int]", instead) == "collections.abc.Sequence[int]"
    assert annotation_source("datetime.date", instead) == "Any"
    assert annotation_source(None, instead) == "typing.Any"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("1", "1"),
        ("-1.5", "-1.5"),
        ("'a'", "'a'"),
        ("None", "None"),
        ("{'a': [1, (2,)]}", "{'a': [1, (2,)]}"),
        ("'\\x1b'", "'\\x1b'"),
        ("<object object>", "..."),
        ("datetime.datetime(1, 1, 1)", "..."),
        ("__import__('os')", "..."),
        ("'cut off...", "..."),
        ("nan", "..."),
        ("", "..."),
        ("1e999", "..."),
    ],
)
def test_defaults(text, source) -> None:
    assert default_source(text) == source


python_like = st.text("abcintlsrANy[](){}|.,:'\"\\ \n#*=-_0123456789…", max_size=60)


@given(st.text() | python_like)
def test_any_text_of_a_peer(text: str) -> None:
    """Each is one expression, on one line."""
    for source in (
        annotation_source(text, {}),
        result_source(text, {"Any": "typing.Any"}),
        items_source(text, {}),
        default_source(text),
    ):
        assert source.isprintable()
        tree = ast.parse(source, mode="eval")
        assert not any(isinstance(node, ast.Call | ast.Lambda) for node in ast.walk(tree))
