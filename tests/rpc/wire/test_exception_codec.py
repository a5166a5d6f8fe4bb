"""Exceptions that travel: always packable, never raising, of the same class where they may be."""

import asyncio
import builtins
import sys
import traceback
from collections import ChainMap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc import errors
from berrymq_rpc.errors import GenericError
from berrymq_rpc.rpc.wire import exception_codec as failure_module
from berrymq_rpc.rpc.wire.aiozmq_codec import AiozmqCodec
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.exception_codec import (
    Failure,
    describe,
    from_aiozmq_name,
    restore,
    to_aiozmq,
    to_aiozmq_name,
)
from berrymq_rpc.rpc.wire.safe_repr import full_name

CODEC = Codec()
FOREIGN = AiozmqCodec()


def over_the_wire(error: BaseException, table: Any = None, **options: Any) -> Exception:
    """What a caller gets for what a handler raised."""
    failure = describe(error, CODEC, **options)
    assert len(failure.text.encode()) <= 4096
    foreign = describe(error, FOREIGN, **options)
    FOREIGN.pack(tuple(to_aiozmq(foreign)))
    return restore(Failure(*CODEC.unpack(CODEC.pack(tuple(failure)))), table)


def is_same(got: BaseException, error: BaseException) -> None:
    assert type(got) is type(error)
    assert got.args == error.args
    assert str(got) == str(error)


# -- classes that are known everywhere -----------------------------------------------------

KNOWN = [
    ValueError("x"),
    ValueError(),
    KeyError(("a", 1), None),
    ZeroDivisionError("division by zero"),
    AssertionError({1: (2,)}),
    TimeoutError("late"),
    RuntimeError(b"bytes", 1.5, None),
    OSError("one text"),
    OSError(5, "no"),
    FileNotFoundError(2, "No such file", "name"),
    FileExistsError(17, "there", "from", None, "to"),
    OSError(13, "denied", b"name"),
    BlockingIOError(11, "later", 7),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    SyntaxError("bad", ("file", 1, 2, "text", 1, 3)),
    ImportError("no module"),
    NotImplementedError(),
    RecursionError("too deep"),
    MemoryError(),
    UserWarning("careful"),
    asyncio.InvalidStateError("x"),
    asyncio.QueueEmpty(),
    asyncio.QueueFull(),
    asyncio.IncompleteReadError(b"ab", 5),
    asyncio.LimitOverrunError("over", 3),
    asyncio.BrokenBarrierError(),
    errors.NotFoundError("no such method"),
    errors.ParametersError("missing a required argument: 'x'"),
    errors.OverloadedError("calls"),
    errors.TooLargeError("large"),
    errors.ProtocolError("x"),
    GenericError("pkg.mod.Cls", (1, (2,)), "Cls(1)"),
]


@pytest.mark.parametrize("error", KNOWN, ids=repr)
def test_known_classes(error: Exception) -> None:
    got = over_the_wire(error)
    is_same(got, error)
    assert vars(got) == vars(error)
    for name in ("errno", "strerror", "filename", "filename2", "characters_written"):
        assert getattr(got, name, None) == getattr(error, name, None)


def test_every_builtin_class_of_exceptions() -> None:
    for cls in vars(builtins).values():
        if isinstance(cls, type) and issubclass(cls, Exception):
            if issubclass(cls, UnicodeError | BaseExceptionGroup):
                continue
            got = over_the_wire(cls("x"))
            if issubclass(cls, StopIteration | StopAsyncIteration):
                assert type(got) is GenericError
            else:
                is_same(got, cls("x"))


def test_real_errors() -> None:
    for action in (
        lambda: open("/nowhere/to/be/found"),  # noqa: SIM115
        lambda: Path("/nowhere/a").rename("/nowhere/b"),
        lambda: int("x"),
        lambda: {}["missing"],
        lambda: None.missing,  # type: ignore[attr-defined]
        lambda: b"\xff".decode(),
        lambda: "\ud800".encode(),
        lambda: [][1],
        lambda: unknown_name,  # type: ignore[name-defined]  # noqa: F821
        lambda: int("1" * 5000),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            action()
        is_same(over_the_wire(caught.value), caught.value)


def test_a_subclass_of_oserror() -> None:
    class Lost(OSError):
        pass

    class Wrapped(OSError):
        def __init__(self, path: str) -> None:
            super().__init__(2, "lost", path)

    table = {full_name(Lost): Lost, full_name(Wrapped): Wrapped}
    got = over_the_wire(Lost(2, "gone", "file", None, "other"), table)
    assert (got.args, got.filename, got.filename2) == ((2, "gone"), "file", "other")  # type: ignore[attr-defined]
    assert type(over_the_wire(Wrapped("file"), table)) is GenericError


def test_a_subclass_of_oserror_that_resists() -> None:
    class Stubborn(OSError):
        def __reduce__(self) -> Any:
            raise RuntimeError

    class Elsewhere(OSError):
        def __reduce__(self) -> Any:
            return OSError, (5, "other")

    for error in (Stubborn(2, "gone", "file"), Elsewhere(2, "gone", "file")):
        assert describe(error, CODEC).args == (2, "gone")


@pytest.mark.parametrize(
    ("error", "cls"),
    [
        (errors.RPCTimeoutError("5 s"), TimeoutError),
        (errors.ConnectionLostError("5 s"), ConnectionError),
        (errors.AuthenticationError("5 s"), ConnectionError),
    ],
)
def test_what_a_handler_met_with_is_not_about_this_side(
    error: errors.Error, cls: type[Exception]
) -> None:
    got = over_the_wire(error)
    assert type(got) is cls
    assert got.args == ("5 s",)


def test_another_service_that_is_closed() -> None:
    got = over_the_wire(errors.ServiceClosedError("theirs"))
    assert type(got) is GenericError
    assert got.exc_type == "berrymq_rpc.errors.ServiceClosedError"
    assert got.arguments == ("theirs",)


def test_names_that_asyncio_had_before() -> None:
    assert type(restore(Failure("asyncio.exceptions.TimeoutError", (), ""))) is TimeoutError
    assert type(restore(Failure("asyncio.QueueFull", (), ""))) is asyncio.QueueFull


def test_without_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "asyncio.exceptions")
    failure = Failure("asyncio.exceptions.InvalidStateError", ("x",), "text")
    assert type(restore(failure)) is GenericError


# -- classes that are not ------------------------------------------------------------------


class Custom(Exception):
    pass


class Keyword(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(code)


class Changing(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}", code)


class Growing(Exception):
    def __init__(self, *texts: str) -> None:
        super().__init__("again", *texts)


class Other(Exception):
    def __new__(cls, *args: Any) -> Any:
        return ValueError(*args) if args else super().__new__(cls)


class Exiting(Exception):
    def __init__(self, *args: Any) -> None:
        if args:
            raise SystemExit


class Interrupting(Exception):
    def __init__(self, *args: Any) -> None:
        if args:
            raise KeyboardInterrupt


class Awkward(Exception):
    """Nothing that is asked of it goes well."""

    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__

    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError

    @property
    def __class__(self) -> Any:
        raise RuntimeError

    def __reduce__(self) -> Any:
        raise RuntimeError

    def add_note(self, note: str) -> None:
        raise RuntimeError

    @property
    def __notes__(self) -> Any:
        raise RuntimeError


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class Resisting(Exception, metaclass=Meta):
    pass


TABLE = {
    full_name(cls): cls for cls in (Custom, Keyword, Changing, Growing, Other, Exiting, Awkward)
}


def test_a_class_that_is_named() -> None:
    error = Custom(1, ("a",), {"k": None})
    is_same(over_the_wire(error, TABLE), error)
    is_same(over_the_wire(error, ChainMap({}, TABLE)), error)


@pytest.mark.parametrize("table", [None, {}, {f"{__name__}.Other": Custom}])
def test_a_class_that_is_not(table: Any) -> None:
    got = over_the_wire(Custom(1, "a"), table)
    assert isinstance(got, GenericError)
    assert got.exc_type == f"{__name__}.Custom"
    assert got.arguments == (1, "a")
    assert got.exc_repr == "Custom(1, 'a')"


def test_a_table_may_name_other_classes() -> None:
    assert type(over_the_wire(ValueError("x"), {"builtins.ValueError": Custom})) is Custom


@pytest.mark.parametrize(
    "cls", [StopIteration, StopAsyncIteration, KeyboardInterrupt, int, None, 5]
)
def test_classes_that_are_never_raised(cls: Any) -> None:
    got = over_the_wire(Custom("x"), {full_name(Custom): cls})
    assert type(got) is GenericError


@pytest.mark.parametrize(
    "error",
    [
        StopIteration(5),
        StopAsyncIteration(),
        KeyboardInterrupt(),
        SystemExit(1),
        GeneratorExit(),
        asyncio.CancelledError("x"),
    ],
    ids=repr,
)
def test_what_would_end_more_than_the_call(error: BaseException) -> None:
    got = over_the_wire(error)
    assert isinstance(got, GenericError)
    assert got.exc_type == full_name(type(error))
    assert got.arguments == error.args


@pytest.mark.parametrize("error", [Changing(5), Growing("a")], ids=repr)
def test_constructors_that_make_other_arguments(error: Exception) -> None:
    got = over_the_wire(error, TABLE)
    if isinstance(error, Growing):
        is_same(got, error)
    else:
        assert type(got) is GenericError
        assert got.arguments == ("code 5", 5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("cls", [Keyword, Other, Exiting])
def test_constructors_that_refuse(cls: type[Exception]) -> None:
    got = restore(Failure(full_name(cls), (1, 2), "text"), TABLE)
    assert isinstance(got, GenericError)
    assert (got.exc_type, got.arguments, got.exc_repr) == (full_name(cls), (1, 2), "text")


def test_an_interrupt_is_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        restore(Failure("x", (1,), ""), {"x": Interrupting})


def test_awkward_exceptions() -> None:
    got = over_the_wire(Awkward(1), None, traceback=True)
    assert isinstance(got, GenericError)
    assert got.arguments == (1,)
    assert "whose repr raises" in got.exc_repr
    restored = restore(Failure(full_name(Awkward), (1,), "", "traceback"), TABLE)
    assert type(restored) is Awkward


def test_exceptions_of_a_class_that_resists() -> None:
    got = over_the_wire(Resisting("x"), None, traceback=True)
    assert isinstance(got, GenericError)
    assert got.exc_type == f"{__name__}.Resisting"


# -- arguments that do not travel ----------------------------------------------------------


class Hostile:
    def __repr__(self) -> str:
        raise SystemExit


def test_arguments_that_cannot_be_packed() -> None:
    thing = object()
    got = over_the_wire(ValueError(1, thing, {"x": thing}, (2,), Hostile()))
    assert type(got) is ValueError
    assert got.args == (
        1,
        repr(thing),
        repr({"x": thing}),
        (2,),
        f"<{__name__}.Hostile whose repr raises builtins.SystemExit>",
    )


def test_arguments_that_cannot_be_packed_for_a_plain_peer() -> None:
    failure = describe(ValueError({1: 2}, "\ud800", 2**70, {3}), FOREIGN)
    assert failure.args == ("{1: 2}", "'\\ud800'", str(2**70), "{3}")


def test_packers_that_exit() -> None:
    def leave(value: Any) -> bytes:
        raise SystemExit

    failure = describe(ValueError(Hostile()), Codec({1: (Hostile, leave, bytes)}))
    assert failure.args == (f"<{__name__}.Hostile whose repr raises builtins.SystemExit>",)


def interrupted(value: Any) -> bytes:
    raise KeyboardInterrupt


def test_packers_that_are_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt):
        describe(ValueError(Hostile()), Codec({1: (Hostile, interrupted, bytes)}))


def cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def test_large_arguments() -> None:
    failure = describe(ValueError("x" * 100_000, b"y" * 100_000, cyclic(), 7), CODEC)
    assert [type(arg) for arg in failure.args] == [str, str, str, int]
    assert len(CODEC.pack(tuple(failure))) < 20_000
    # Each would do, but not together.
    failure = describe(ValueError(*["x" * 30_000] * 3), CODEC)
    assert failure.args == ("'" + "x" * 256 + "'...",) * 3
    failure = describe(ValueError(*["x" * 100] * 1000), CODEC)
    assert failure.args == ()
    assert failure.text.startswith("ValueError")
    assert len(failure.text) < 20_000
    assert describe(ValueError(10**5000), CODEC).text


# -- groups --------------------------------------------------------------------------------


def test_groups() -> None:
    error = ExceptionGroup(
        "some", [ValueError(1), ExceptionGroup("inner", [KeyError("k"), OSError(2, "no", "f")])]
    )
    got = over_the_wire(error)
    assert isinstance(got, ExceptionGroup)
    first, inner = got.exceptions
    is_same(first, ValueError(1))
    assert isinstance(inner, ExceptionGroup)
    assert [repr(item) for item in inner.exceptions] == ["KeyError('k')", repr(OSError(2, "no"))]
    assert inner.exceptions[1].filename == "f"  # type: ignore[attr-defined]
    assert (got.message, inner.message) == ("some", "inner")


def test_a_group_of_other_exceptions() -> None:
    got = over_the_wire(BaseExceptionGroup("b", [KeyboardInterrupt(), ValueError(1)]))
    assert isinstance(got, GenericError)
    assert got.exc_type == "builtins.BaseExceptionGroup"
    message, (first, second) = got.arguments
    assert message == "b"
    assert (first.exc_type, repr(second)) == ("builtins.KeyboardInterrupt", "ValueError(1)")


class Group(ExceptionGroup[Exception]):
    pass


def test_a_group_of_the_users() -> None:
    got = over_the_wire(Group("g", [ValueError(1)]), {full_name(Group): Group})
    assert isinstance(got, Group)
    assert repr(got.exceptions) == "(ValueError(1),)"
    got = over_the_wire(Group("g", [ValueError(object())]))
    assert isinstance(got, GenericError)


def test_large_groups() -> None:
    failure = describe(ExceptionGroup("many", [ValueError(number) for number in range(100)]), CODEC)
    got = restore(failure)
    assert isinstance(got, ExceptionGroup)
    assert len(got.exceptions) == 33
    assert repr(got.exceptions[-1]) == "Exception('68 more did not travel')"
    members = [ValueError("x" * 50_000, "y" * 5000) for _ in range(100)]
    failure = describe(ExceptionGroup("x" * 100_000, [ExceptionGroup("in", members)] * 3), CODEC)
    assert len(CODEC.pack(tuple(failure))) < 1 << 19
    assert isinstance(restore(failure), ExceptionGroup)


def test_deep_groups() -> None:
    error: Exception = ValueError("innermost")
    for _ in range(50):
        error = ExceptionGroup("level", [error])
    got: Any = over_the_wire(error)
    levels = 0
    while isinstance(got, ExceptionGroup):
        (got,) = got.exceptions
        levels += 1
    assert levels == failure_module.MAX_GROUP_LEVELS + 1
    assert repr(got) == "Exception('1 more did not travel')"


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("m",),
        ("m", 5),
        ("m", ()),
        ("m", (5,)),
        ("m", (("builtins.ValueError",),)),
        (5, (("builtins.ValueError", (), ""),)),
        ("m", "text"),
    ],
)
def test_malformed_groups(args: tuple[Any, ...]) -> None:
    got = restore(Failure("builtins.ExceptionGroup", args, "text"))
    assert isinstance(got, GenericError)


def test_groups_deeper_than_ours() -> None:
    args: tuple[Any, ...] = ("m", (("builtins.ValueError", (1,), "", None),))
    for _ in range(90):
        args = ("m", (("builtins.ExceptionGroup", args, "", None),))
    assert isinstance(restore(Failure("builtins.ExceptionGroup", args, "")), ExceptionGroup)


# -- tracebacks ----------------------------------------------------------------------------


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_traceback_travels_when_it_is_asked_for() -> None:
    error = raised(ValueError("x"))
    assert describe(error, CODEC).traceback is None
    got = over_the_wire(error, traceback=True)
    (note,) = got.__notes__
    assert note.startswith("Remote traceback:\nTraceback (most recent call last):\n")
    assert "in raised" in note
    assert note.rstrip().endswith("ValueError: x")
    assert "Remote traceback:" in "".join(traceback.format_exception(got))
    assert not hasattr(over_the_wire(error), "__notes__")


def test_long_tracebacks_keep_their_end() -> None:
    def dive(level: int) -> None:
        if level:
            dive(level - 1)
        raise ValueError("\ud800" + "x" * 100_000 + "the end")

    with pytest.raises(ValueError, match="the end") as caught:
        dive(200)
    text = describe(caught.value, CODEC, traceback=True).traceback
    assert text is not None
    assert text.startswith("...\n")
    assert text.rstrip().endswith("the end")
    assert len(text.encode()) <= 4 * failure_module.MAX_TRACEBACK


def test_a_traceback_that_cannot_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise RecursionError

    monkeypatch.setattr(traceback, "format_exception", fail)
    text = describe(ValueError("x"), CODEC, traceback=True).traceback
    assert text == "(it cannot be shown: builtins.RecursionError)"


def test_of_a_group_the_whole_traceback_travels_once() -> None:
    error = raised(ExceptionGroup("g", [raised(ValueError("inner"))]))  # type: ignore[list-item]
    failure = describe(error, CODEC, traceback=True)
    assert failure.traceback is not None
    assert "ValueError: inner" in failure.traceback
    assert failure.args[1][0][3] is None


# -- what a peer may send ------------------------------------------------------------------

ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.integers(),
        st.text(st.characters(exclude_categories=()), max_size=5),
        st.binary(max_size=5),
        st.sampled_from(["m", "builtins.ExceptionGroup", "builtins.OSError", *TABLE]),
    ),
    lambda inner: st.one_of(st.lists(inner), st.lists(inner).map(tuple)),
    max_leaves=10,
)
NAMES = st.one_of(
    ANYTHING,
    st.sampled_from([f"builtins.{name}" for name in dir(builtins)]),
    st.sampled_from(
        [f"{module}.{name}" for module in ("asyncio", "asyncio.queues") for name in dir(asyncio)]
    ),
    st.sampled_from([f"berrymq_rpc.errors.{name}" for name in dir(errors)]),
    st.sampled_from(list(TABLE)),
)


@given(NAMES, ANYTHING, ANYTHING, ANYTHING)
def test_restoring_never_raises(name: Any, args: Any, text: Any, note: Any) -> None:
    got = restore(Failure(name, args, text, note), TABLE)
    assert issubclass(type(got), Exception)
    assert not issubclass(type(got), StopIteration | StopAsyncIteration)
    if type(got) is Awkward:
        return
    future: asyncio.Future[None] = asyncio.Future(loop=LOOP)
    future.set_exception(got)
    assert future.exception() is got


LOOP = asyncio.new_event_loop()


@pytest.fixture(scope="module", autouse=True)
def _loop() -> Any:
    yield
    LOOP.close()


def test_names_import_nothing() -> None:
    before = set(sys.modules)
    for name in ("antigravity.X", "this.X", "asyncio.this.X", "builtins.__import__", "", "."):
        assert type(restore(Failure(name, ("os",), ""))) is GenericError
    assert set(sys.modules) == before


@given(ANYTHING)
def test_describing_never_raises(argument: Any) -> None:
    over_the_wire(ValueError(argument), traceback=True)


# -- the names of aiozmq.rpc ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Error", "GenericError", "NotFoundError", "ParametersError", "ServiceClosedError"]
)
def test_names_of_aiozmq(name: str, plain_aiozmq: ModuleType) -> None:
    theirs = full_name(getattr(plain_aiozmq, name))
    ours = full_name(getattr(errors, name))
    assert to_aiozmq_name(ours) == theirs
    assert from_aiozmq_name(theirs) == ours
    if name != "ServiceClosedError":
        got = restore(Failure(from_aiozmq_name(theirs), ("a", (), ""), ""))
        assert type(got) is getattr(errors, name)


def test_other_names_stay() -> None:
    for name in ("builtins.ValueError", "pkg.Cls", "x", "", "berrymq_rpc.errors.OverloadedError"):
        assert from_aiozmq_name(to_aiozmq_name(name)) == name


def plain_client(plain_aiozmq: ModuleType, error: BaseException) -> Exception:
    """What a plain aiozmq.rpc client makes of an answer; an error here hangs its caller."""
    their_table = sys.modules["aiozmq.rpc.util"]._fill_error_table()
    failure = to_aiozmq(describe(error, FOREIGN, traceback=True))
    assert failure.traceback is None
    name, args, text = FOREIGN.unpack(FOREIGN.pack(failure[:3]))
    found = their_table.get(name)
    if found is None:
        return plain_aiozmq.GenericError(name, args, text)  # type: ignore[no-any-return]
    made = found(*args)
    assert isinstance(made, Exception)
    return made  # type: ignore[no-any-return]


@pytest.mark.parametrize("error", KNOWN, ids=repr)
def test_a_plain_client_raises_the_same(error: Exception, plain_aiozmq: ModuleType) -> None:
    got = plain_client(plain_aiozmq, error)
    if isinstance(error, errors.Error):
        # Of ours it knows these two, and tells the names of the others.
        known = isinstance(error, errors.NotFoundError | errors.ParametersError)
        assert isinstance(
            got, getattr(plain_aiozmq, type(error).__name__ if known else "GenericError")
        )
    else:
        assert type(got) is type(error)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (StopIteration(1), "StopIteration"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (ExceptionGroup("g", [ValueError(1)]), "ExceptionGroup"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
        (UnicodeDecodeError("utf-8", b"x" * 100_000, 0, 1, "long"), "UnicodeDecodeError"),
        (Custom(1), f"{__name__}.Custom"),
    ],
    ids=["iteration", "async iteration", "group", "interrupt", "cancelled", "unicode", "custom"],
)
def test_what_would_hang_a_plain_clients_caller(
    error: BaseException, name: str, plain_aiozmq: ModuleType
) -> None:
    got = plain_client(plain_aiozmq, error)
    assert isinstance(got, plain_aiozmq.GenericError)
    assert got.exc_type == name
