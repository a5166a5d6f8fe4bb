"""Which texts are identifiers, and which identifiers match."""

import copy
import pickle
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.identifier import MAX_LENGTH, Identifier


def is_part(text: str) -> bool:
    """The rule for a part, written a second time."""
    if text == "*":
        return True
    return (
        text != ""
        and not set(text) & set(":@*")
        and text.strip() == text
        and not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in text)
    )


parts = st.text(min_size=1, max_size=20).filter(is_part) | st.just("*")
identifiers = st.builds(
    lambda name, namespace, action: (
        name + (f"@{namespace}" if namespace else "") + (f":{action}" if action else "")
    ),
    parts,
    st.none() | parts,
    st.none() | parts,
)
# Few, so that two of them are often related.
few = st.builds(
    lambda name, namespace, action: Identifier(f"{name}{namespace}:{action}"),
    st.sampled_from(["a", "b", "_a", "*"]),
    st.sampled_from(["", "@a", "@b", "@*"]),
    st.sampled_from(["a", "b", "*"]),
)


@pytest.mark.parametrize(
    ("text", "name", "namespace", "action", "canonical"),
    [
        ("job:done", "job", None, "done", "job:done"),
        ("test", "test", None, "*", "test:*"),
        ("*", "*", None, "*", "*:*"),
        ("*:done", "*", None, "done", "*:done"),
        ("start@plant", "start", "plant", "*", "start@plant:*"),
        ("start@plant:engine", "start", "plant", "engine", "start@plant:engine"),
        ("*@*:*", "*", "*", "*", "*@*:*"),
        ("I'm hungry", "I'm hungry", None, "*", "I'm hungry:*"),
        ("größe:完了", "größe", None, "完了", "größe:完了"),
        ("user-7125/x:a.b", "user-7125/x", None, "a.b", "user-7125/x:a.b"),
        ("_private:x", "_private", None, "x", "_private:x"),
        ("0:1", "0", None, "1", "0:1"),
        ("soft\u00adhyphen:\u200b", "soft\u00adhyphen", None, "\u200b", "soft\u00adhyphen:\u200b"),
    ],
)
def test_parts(text: str, name: str, namespace: str | None, action: str, canonical: str) -> None:
    identifier = Identifier(text)
    assert (identifier.name, identifier.namespace, identifier.action) == (name, namespace, action)
    assert str(identifier) == identifier.id_str() == canonical
    assert repr(identifier) == f"Identifier({canonical!r})"
    assert Identifier(canonical) == identifier


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its name is empty"),
        (":", "its name is empty"),
        (":done", "its name is empty"),
        ("job:", "its action is empty"),
        ("@plant:x", "its name is empty"),
        ("job@:x", "its namespace is empty"),
        ("a:b:c", "its action contains another ':'"),
        ("a::b", "its action contains another ':'"),
        ("a@b@c", "its namespace contains another '@'"),
        ("a:b@c", "its action contains another '@'"),
        ("st*:b", "its name contains '*'"),
        ("**:b", "its name contains '*'"),
        ("a@b*:c", "its namespace contains '*'"),
        ("a:b*", "its action contains '*'"),
        (" a:b", "its name begins or ends with a space"),
        ("a :b", "its name begins or ends with a space"),
        ("a: b", "its action begins or ends with a space"),
        ("a:b ", "its action begins or ends with a space"),
        ("a@ b:c", "its namespace begins or ends with a space"),
        ("a:b\n", "its action begins or ends with a space"),
        ("a:\u3000b", "its action begins or ends with a space"),
        ("a\nb:c", "its name contains the control character '\\n'"),
        ("a\0b", "its name contains the control character '\\x00'"),
        ("a\x7fb", "its name contains the control character '\\x7f'"),
        ("a:b\x9fc", "its action contains the control character '\\x9f'"),
        ("a\ud800b", "its name contains the lone surrogate '\\ud800'"),
    ],
)
def test_refused_text(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="is not an identifier") as caught:
        Identifier(text)
    assert str(caught.value).startswith(f"{text!r} is not an identifier: {reason}")


@pytest.mark.parametrize("value", [None, b"a:b", 1, ["a:b"], object()])
def test_not_text(value: object) -> None:
    with pytest.raises(TypeError, match=f"not {type(value).__name__}"):
        Identifier(value)  # type: ignore[arg-type]


def test_length() -> None:
    assert Identifier("a" * MAX_LENGTH).action == "*"
    text = "a" * (MAX_LENGTH + 1)
    with pytest.raises(ValueError, match=r"1001 characters, 1000 at most") as caught:
        Identifier(text)
    assert len(str(caught.value)) < 250


def test_other_identifier_and_subclass_of_text() -> None:
    class Text(str):
        pass

    first = Identifier("a@b:c")
    assert Identifier(first) == first
    assert Identifier(Text("a@b:c")) == first
    assert type(str(Identifier(Text("a:b")))) is str


def test_equality_and_hash() -> None:
    assert Identifier("test") == Identifier("test:*")
    assert hash(Identifier("test")) == hash(Identifier("test:*"))
    assert Identifier("test") != Identifier("test:a")
    assert Identifier("test") != "test:*"
    assert len({Identifier("a"), Identifier("a:*"), Identifier("a:b")}) == 2


def test_immutable() -> None:
    identifier = Identifier("a:b")
    for name in ("name", "action", "namespace", "_text", "other"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(identifier, name, "x")
    with pytest.raises(AttributeError, match="immutable"):
        del identifier.name
    assert not hasattr(identifier, "__dict__")
    assert str(identifier) == "a:b"


def test_copies() -> None:
    identifier = Identifier("a@b:c")
    assert copy.copy(identifier) == copy.deepcopy(identifier) == identifier
    assert pickle.loads(pickle.dumps(identifier)) == identifier


def test_require_exportable() -> None:
    identifier = Identifier("a")
    assert identifier.require_exportable() is identifier
    for text in ("_a:b", "_", "_a@b:*"):
        with pytest.raises(ValueError, match=f"'{re.escape(str(Identifier(text)))}' is local"):
            Identifier(text).require_exportable()


def test_is_local() -> None:
    assert Identifier("_a:b").is_local
    assert Identifier("_").is_local
    assert not Identifier("a:_b").is_local
    assert not Identifier("a@_b:c").is_local
    assert not Identifier("*").is_local


@pytest.mark.parametrize(
    ("one", "other", "match"),
    [
        ("a:b", "a:b", True),
        ("a:b", "a:c", False),
        ("a:b", "c:b", False),
        ("a", "a:b", True),
        ("*:b", "a:b", True),
        ("*:b", "a:c", False),
        ("*", "a:b", True),
        ("*:b", "a:*", True),
        ("start:*", "start:engine", True),
        ("_a:b", "*:b", True),
        ("a@x:b", "a@x:b", True),
        ("a@x:b", "a@y:b", False),
        ("a@x:b", "a:b", False),
        ("a@x:b", "*:*", False),
        ("a@x:b", "a@*:b", True),
        ("a:b", "a@*:b", True),
        ("a@x:b", "*@x:b", True),
        ("a@x:b", "*@*:*", True),
        ("a:b", "*@*:*", True),
        ("a@*:b", "a@*:*", True),
    ],
)
def test_is_match(one: str, other: str, match: bool) -> None:
    assert Identifier(one).is_match(Identifier(other)) is match
    assert Identifier(other).is_match(one) is match


def test_is_match_refuses_what_is_not_an_identifier() -> None:
    with pytest.raises(ValueError, match="not an identifier"):
        Identifier("a").is_match("")
    with pytest.raises(TypeError):
        Identifier("a").is_match(None)  # type: ignore[arg-type]


@given(identifiers)
def test_canonical_form_is_stable(text: str) -> None:
    identifier = Identifier(text)
    again = Identifier(str(identifier))
    assert again == identifier
    assert str(again) == str(identifier)
    assert hash(again) == hash(identifier)
    assert identifier.is_match(again)


@given(st.text(max_size=30) | st.text(alphabet=":@* ab_\n", max_size=12))
def test_any_text_is_accepted_or_refused_by_the_rule(text: str) -> None:
    head, colon, action = text.partition(":")
    name, at, namespace = head.partition("@")
    wanted = is_part(name) and (not at or is_part(namespace)) and (not colon or is_part(action))
    if not wanted:
        with pytest.raises(ValueError, match="is not an identifier") as caught:
            Identifier(text)
        assert repr(text) in str(caught.value)
        return
    identifier = Identifier(text)
    assert identifier.name == name
    assert identifier.namespace == (namespace if at else None)
    assert identifier.action == (action if colon else "*")


@given(few, few)
def test_match_is_symmetric_and_by_parts(one: Identifier, other: Identifier) -> None:
    def fits(left: str | None, right: str | None) -> bool:
        return left == right or left == "*" or right == "*"

    wanted = (
        fits(one.name, other.name)
        and fits(one.action, other.action)
        and fits(one.namespace, other.namespace)
    )
    assert one.is_match(other) is other.is_match(one) is wanted


@given(few)
def test_everything_matches_all(identifier: Identifier) -> None:
    assert identifier.is_match("*@*:*")


@given(st.text(alphabet=string.printable, max_size=2 * MAX_LENGTH))
def test_error_is_bounded(text: str) -> None:
    with pytest.raises(ValueError, match="is not an identifier") as caught:
        Identifier(f"a::{text}")
    assert len(str(caught.value)) < 600
