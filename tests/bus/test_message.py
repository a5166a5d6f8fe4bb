"""What a receiver gets."""

import copy
import itertools

import pytest

from berrymq_rpc.bus.message import (
    MAX_REPR,
    Message,
    OutcomeMessage,
    RelayedMessage,
    TalkMessage,
)
from berrymq_rpc.identifier import Identifier


def make(text: str = "job@plant:done", *args: object, **kwargs: object) -> Message:
    return Message(Identifier(text), args, kwargs)


def test_fields() -> None:
    message = make("job@plant", 1, "two", score=3)
    assert message.id == "job@plant:*"
    assert message.name == "job"
    assert message.namespace == "plant"
    assert message.action == "*"
    assert message.args == (1, "two")
    assert message.kwargs == {"score": 3}
    assert message.origin is None


def test_arguments_by_name() -> None:
    message = make(score=3, username="shibu")
    assert message.score == 3
    assert message.username == "shibu"
    with pytest.raises(AttributeError, match="no argument 'missing'"):
        _ = message.missing
    assert not hasattr(message, "missing")


def test_arguments_never_shadow_fields() -> None:
    names = ["id", "name", "namespace", "action", "args", "kwargs", "apply", "origin", "_args"]
    message = make("a:b", **dict.fromkeys(names, "shadow"))
    assert message.id == "a:b"
    assert message.name == "a"
    assert message.namespace is None
    assert message.action == "b"
    assert message.args == ()
    assert message.kwargs["id"] == "shadow"
    assert message.origin is None
    assert callable(message.apply)
    assert list(message.kwargs) == names


def test_special_names_are_no_arguments() -> None:
    message = make(__deepcopy__=lambda memo: "mine", __index__=1)
    assert not hasattr(message, "__deepcopy__")
    assert not hasattr(message, "__index__")


@pytest.mark.parametrize("name", ["id", "name", "namespace", "action", "args", "kwargs", "origin"])
def test_fields_are_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(make(), name, "x")


def test_apply() -> None:
    message = make("a:b", 1, score=3)
    assert message.apply(lambda *args, **kwargs: (args, kwargs)) == ((1,), {"score": 3})
    with pytest.raises(TypeError):
        message.apply(lambda: None)


def test_copy() -> None:
    message = make("a:b", [1], score=[3])
    for other in (copy.copy(message), copy.deepcopy(message)):
        assert (other.id, other.args, other.score) == ("a:b", ([1],), [3])
    blank = Message.__new__(Message)
    with pytest.raises(AttributeError):
        _ = blank.args


def test_repr() -> None:
    assert repr(make("a:b", 1, x="y")) == "<Message a:b args=(1,) kwargs={'x': 'y'}>"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Wordy:
    def __repr__(self) -> str:
        return "w" * 100_000


RECURSIVE: list[object] = []
RECURSIVE.append(RECURSIVE)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        b"x" * 1_000_000,
        list(range(100_000)),
        [[[["deep"] * 50] * 50] * 50] * 50,
        {f"key{i}": "v" * 100 for i in range(1_000)},
        10**5_000,
        Unprintable(),
        Wordy(),
        RECURSIVE,
        {1: "mixed", "two": 2},
    ],
    ids=itertools.count(),
)
def test_repr_is_bounded_and_never_fails(value: object) -> None:
    text = repr(Message(Identifier("n" * 500), (value,) * 10, {"value": value}))
    assert len(text) <= MAX_REPR
    assert text.startswith("<Message n")
    assert text.endswith(">")
    assert len(repr(make("a:b", value))) <= MAX_REPR


def test_relayed() -> None:
    message = RelayedMessage(Identifier("a:b"), (1,), {"origin": "argument"}, "node 7")
    assert isinstance(message, Message)
    assert message.origin == "node 7"
    assert message.kwargs["origin"] == "argument"
    assert (message.id, message.args) == ("a:b", (1,))


def test_error_is_an_argument_of_plain_messages() -> None:
    assert make("a:b").error is None
    assert make("a:b", error="no fuel").error == "no fuel"
    assert make("a:b", reply_to="no field").reply_to is None


def test_outcome() -> None:
    error = ValueError("broken")
    message = OutcomeMessage(Identifier("a:b"), (None,), {"error": "argument"}, error, "node 7")
    assert isinstance(message, Message)
    assert (message.error, message.origin, message.args) == (error, "node 7", (None,))
    assert OutcomeMessage(Identifier("a:b"), (1,), {}, None).error is None
    assert copy.copy(message).error is error


def test_talk() -> None:
    message = TalkMessage(Identifier("a:b"), (1,), {}, Identifier("answer"))
    assert (message.reply_to, message.origin, message.error) == ("answer:*", None, None)
    assert TalkMessage(Identifier("a:b"), (), {}, Identifier("_own")).reply_to is None
