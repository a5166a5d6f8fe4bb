import enum
import functools
import gc
import inspect
import sys
import typing
import weakref
from collections.abc import AsyncIterator, Callable
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Generic,
    Literal,
    Optional,
    ParamSpec,
    TypeVar,
    TypeVarTuple,
    Union,
    Unpack,
)

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berrymq_rpc.errors import ParametersError
from berrymq_rpc.rpc.signature import Signature, annotation_text, bounded_repr

NAMES = ("a", "b", "c", "d", "e")


@st.composite
def functions(draw):
    """A function with a random signature, which it has from the compiler itself."""
    names = list(NAMES[: draw(st.integers(0, len(NAMES)))])
    positional_only = draw(st.integers(0, len(names)))
    positional = draw(st.integers(positional_only, len(names)))
    first_default = draw(st.integers(0, positional))
    parts = []
    for position, name in enumerate(names[:positional]):
        parts.append(f"{name}=0" if position >= first_default else name)
        if position == positional_only - 1:
            parts.append("/")
    variable = draw(st.booleans())
    keyword_only = names[positional:]
    if variable:
        parts.append("*args")
    elif keyword_only:
        parts.append("*")
    parts.extend(f"{name}=0" if draw(st.booleans()) else name for name in keyword_only)
    if draw(st.booleans()):
        parts.append("**kwargs")
    namespace = {}
    exec(f"def function({', '.join(parts)}): pass", namespace)
    return namespace["function"]


positional_arguments = st.integers(0, 7).map(lambda count: tuple(range(count)))
keyword_arguments = st.dictionaries(
    st.sampled_from([*NAMES, "x", "args", "kwargs", "self"]), st.integers()
)


def accepts(signature, args, kwargs):
    try:
        signature.check(args, kwargs)
    except ParametersError:
        return False
    return True


def succeeds(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except TypeError:
        return False
    return True


def names_a_positional_only(function, kwargs):
    """Here bind() differs from the call, and from one Python to another: of ``def f(a=0, /,
    **kwargs)`` 3.11 refuses ``f(a=1)``, of ``def f(a, /, **kwargs)`` 3.13.0 accepts it, and of
    ``def f(a=0, /)`` 3.14 does.
    """
    parameters = inspect.signature(function).parameters.values()
    return any(p.kind is p.POSITIONAL_ONLY and p.name in kwargs for p in parameters)


@settings(max_examples=500)
@given(functions(), positional_arguments, keyword_arguments)
def test_check_agrees_with_the_call_itself(function, args, kwargs):
    signature = Signature(function, "function")
    assert accepts(signature, args, kwargs) == succeeds(function, *args, **kwargs)


@settings(max_examples=500)
@given(functions(), positional_arguments, keyword_arguments)
def test_check_agrees_with_bind(function, args, kwargs):
    if names_a_positional_only(function, kwargs):
        return
    bind = inspect.signature(function).bind
    assert accepts(Signature(function, "f"), args, kwargs) == succeeds(bind, *args, **kwargs)


@given(functions(), positional_arguments, st.data())
def test_check_of_a_partial_agrees_with_bind(function, args, data):
    named = [p.name for p in inspect.signature(function).parameters.values() if p.kind in (1, 3)]
    fixed = data.draw(st.sets(st.sampled_from(named))) if named else set()
    function = functools.partial(function, **dict.fromkeys(fixed, 1))
    kwargs = data.draw(keyword_arguments)
    if names_a_positional_only(function, kwargs):
        return
    bind = inspect.signature(function).bind
    assert accepts(Signature(function, "f"), args, kwargs) == succeeds(bind, *args, **kwargs)


@given(functions(), positional_arguments)
def test_minimum_and_maximum_say_it_all_without_keywords(function, args):
    signature = Signature(function, "f")
    fits = signature.minimum <= len(args) <= signature.maximum
    assert fits == succeeds(function, *args)
    assert fits == accepts(signature, args, {})


def test_minimum_and_maximum():
    def variable(a, b=1, *args): ...

    def needs_keyword(a, *args, b): ...

    def nothing(): ...

    def optional(a, b=1, *, c=2): ...

    def bounds(function):
        signature = Signature(function, "f")
        return signature.minimum, signature.maximum

    assert bounds(variable) == (1, sys.maxsize)
    assert bounds(nothing) == (0, 0)
    assert bounds(optional) == (1, 2)
    minimum, maximum = bounds(needs_keyword)
    assert minimum > maximum


def func(a: int, b: int = 0): ...


def positional_only(a, b=1, /): ...


def keyword_only(a, *, b, c, d=1): ...


def everything(a, /, b, *args, c, **kwargs): ...


def nothing(): ...


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "text"),
    [
        (func, (), {}, "func(a: int, b: int = 0): missing 1 required argument: 'a'"),
        (func, (), {"b": 1}, "func(a: int, b: int = 0): missing 1 required argument: 'a'"),
        (
            func,
            (1, 2, 3),
            {},
            "func(a: int, b: int = 0): takes from 1 to 2 positional arguments, but 3 were given",
        ),
        (nothing, (1,), {}, "nothing(): takes 0 positional arguments, but 1 was given"),
        (
            func,
            (1,),
            {"a": 2},
            "func(a: int, b: int = 0): got 'a' both by position and by name",
        ),
        (
            func,
            (1, 2),
            {"b": 2, "a": 1},
            "func(a: int, b: int = 0): got 'a' and 'b' both by position and by name",
        ),
        (
            func,
            (1,),
            {"c": 2},
            "func(a: int, b: int = 0): got 1 unexpected keyword argument: 'c'",
        ),
        (
            func,
            (1,),
            dict.fromkeys("cdefg"),
            "func(a: int, b: int = 0): got 5 unexpected keyword arguments: "
            "'c', 'd', 'e' and 2 more",
        ),
        (
            positional_only,
            (),
            {"a": 1},
            "positional_only(a, b=1, /): takes 'a' by position only, but got 'a' by name",
        ),
        (
            keyword_only,
            (),
            {},
            "keyword_only(a, *, b, c, d=1): missing 3 required arguments: 'a', 'b' and 'c'",
        ),
        (
            keyword_only,
            (1, 2),
            {},
            "keyword_only(a, *, b, c, d=1): takes 1 positional argument, but 2 were given",
        ),
        (
            everything,
            (),
            {"a": 1, "b": 2, "c": 3},
            "everything(a, /, b, *args, c, **kwargs): missing 1 required argument: 'a'",
        ),
        (func, (1,), {b"b": 1}, "func(a: int, b: int = 0): names of arguments are text, not bytes"),
        (
            everything,
            (1, 2),
            {None: 1},
            "everything(a, /, b, *args, c, **kwargs): names of arguments are text, not NoneType",
        ),
    ],
)
def test_the_error_says_what_is_wrong(function, args, kwargs, text):
    with pytest.raises(ParametersError) as caught:
        Signature(function, function.__name__).check(args, kwargs)
    assert str(caught.value) == text


def test_good_arguments_pass():
    Signature(func, "func").check((1,), {"b": 2})
    Signature(func, "func").check((), {"b": 2, "a": 1})
    Signature(everything, "everything").check((1, 2, 3), {"c": 1, "a": 2, "x": 3})


def test_types_are_not_checked():
    Signature(func, "func").check(("text", None), {})


@pytest.mark.parametrize("function", [max, functools.partial(max), functools.partial(iter)])
def test_what_has_no_signature_takes_anything(function):
    signature = Signature(function, "max")
    signature.check((), {})
    signature.check((1, 2, 3), {"key": None})
    assert (signature.minimum, signature.maximum) == (0, sys.maxsize)
    assert str(signature) == "max(*args, **kwargs)"


def test_what_is_no_callable_that_inspect_knows_takes_anything():
    class Odd:
        __signature__ = "no signature"

        def __call__(self): ...

    assert str(Signature(Odd(), "odd")) == "odd(*args, **kwargs)"


def test_a_bound_method_that_cannot_be_called_takes_anything():
    class Handler:
        def lacks_self(): ...

    assert str(Signature(Handler().lacks_self, "f")) == "f(*args, **kwargs)"


def test_a_bound_method_takes_no_self():
    class Handler:
        def add(self, a, b): ...

    assert str(Signature(Handler().add, "math.add")) == "math.add(a, b)"
    Signature(Handler().add, "math.add").check((1, 2), {})


def test_renamed():
    signature = Signature(func, "func")
    other = signature.renamed("other")
    assert str(other) == "other(a: int, b: int = 0)"
    assert str(signature) == "func(a: int, b: int = 0)"
    assert signature.renamed("func") is signature
    with pytest.raises(ParametersError, match=r"^other"):
        other.check((), {})
    assert (other.minimum, other.maximum) == (signature.minimum, signature.maximum)


def test_text_is_as_in_source():
    def annotated(
        a: int,
        b: "Missing[str]" = None,  # noqa: F821
        /,
        *args: list[int],
        c: int | None = 1,
        **kw: object,
    ) -> "Missing": ...  # noqa: F821

    assert Signature(annotated, "f").text() == (
        "(a: int, b: Missing[str] = None, /, *args: list[int], c: int | None = 1, "
        "**kw: object) -> Missing"
    )
    assert Signature(nothing, "f").text() == "()"
    assert repr(Signature(func, "f")) == "<Signature f(a: int, b: int = 0)>"


class FailsToShow:
    def __repr__(self):
        raise RuntimeError("no text")


def test_defaults_and_annotations_that_cannot_be_shown():
    def odd(a=FailsToShow(), b=object(), c="x" * 10_000_000): ...  # noqa: B008

    odd.__annotations__ = {"a": FailsToShow(), "return": FailsToShow()}
    text = Signature(odd, "f").text()
    assert "a: <FailsToShow object> = <FailsToShow object>" in text
    assert "b=<object object>" in text
    assert text.endswith(" -> <FailsToShow object>")
    assert len(text) < 500


def test_error_texts_are_bounded():
    names = [f"name_{number:03}" for number in range(200)]
    namespace = {}
    exec(f"def many({', '.join(names)}): pass", namespace)
    assert len(str(Signature(namespace["many"], "many"))) == 1000
    with pytest.raises(ParametersError) as caught:
        Signature(func, "func").check((1,), {"\N{BELL}" * 10_000_000: 1})
    assert len(str(caught.value)) < 300


def test_names_that_are_no_text_to_others_are_shown_escaped():
    with pytest.raises(ParametersError) as caught:
        Signature(func, "func").check((1,), {"\ud800": 1})
    str(caught.value).encode()


def test_bounded_repr():
    assert bounded_repr([1, "a"]) == "[1, 'a']"
    assert bounded_repr("a" * 1000, 10) == "'aaaaaa..."
    assert bounded_repr(b"a" * 1000, 10) == "b'aaaaa..."
    assert bounded_repr(list(range(1000)), 10) == "[0, 1, ..."
    assert bounded_repr("a" * 8, 10) == "'aaaaaaaa'"
    assert bounded_repr([object()]) == "[<object object>]"
    assert bounded_repr(FailsToShow()) == "<FailsToShow object>"


def test_annotation_text():
    assert annotation_text(inspect.Parameter.empty) is None
    assert annotation_text(None) == "None"
    assert annotation_text("Self") == "Self"
    assert annotation_text(int) == "int"
    assert annotation_text(int | str) == "int | str"
    assert annotation_text(FailsToShow()) == "<FailsToShow object>"
    assert len(annotation_text("x" * 1000)) == 200


T = TypeVar("T")
Parameters = ParamSpec("Parameters")
Several = TypeVarTuple("Several")


class Colour(enum.Enum):
    RED = 1


class Box(Generic[T]): ...


HERE = __name__


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Optional[int], "int | None"),  # noqa: UP045
        (Union[int, str, None], "int | str | None"),  # noqa: UP007
        (None | int, "None | int"),
        (Optional[T], "~T | None"),  # noqa: UP045
        (Optional["Order"], "Order | None"),  # noqa: F821
        (Union[list["Order"], None], "list[Order] | None"),  # noqa: F821, UP007
        (int | list["Order"], "int | list[Order]"),  # noqa: F821
        (list["Order"], "list[Order]"),  # noqa: F821
        (typing.List["Order"], "List[Order]"),  # noqa: F821, UP006
        (ForwardRef("Order"), "Order"),
        (list[Optional[int]], "list[int | None]"),  # noqa: UP045
        (tuple[Optional[int], ...], "tuple[int | None, ...]"),  # noqa: UP045
        (tuple[()], "tuple[()]"),
        (dict[str, Any], "dict[str, Any]"),
        (typing.Dict[str, Optional["Order"]], "Dict[str, Order | None]"),  # noqa: F821, UP006
        (list[None], "list[None]"),
        (typing.List[None], "List[None]"),  # noqa: UP006
        (AsyncIterator[Optional[int]], "collections.abc.AsyncIterator[int | None]"),  # noqa: UP045
        (typing.AsyncIterator[Any], "AsyncIterator[Any]"),
        (Callable[[int, Optional[str]], str], "collections.abc.Callable[[int, str | None], str]"),  # noqa: UP045
        (typing.Callable[..., Any], "Callable[..., Any]"),
        (Callable[Parameters, T], "collections.abc.Callable[~Parameters, ~T]"),
        (Annotated[Optional[int], "Order", 5], "Annotated[int | None, 'Order', 5]"),  # noqa: UP045
        (Literal["Order", Colour.RED, None], "Literal['Order', <Colour.RED: 1>, None]"),
        (Optional[Literal["Order"]], "Literal['Order'] | None"),  # noqa: UP045
        (Box[Optional[int]], f"{HERE}.Box[int | None]"),  # noqa: UP045
        (Box["Order"], f"{HERE}.Box[Order]"),
        (Unpack[Several], "*Several"),
        (tuple[Unpack[Several]], "tuple[*Several]"),  # noqa: UP044
        (type[Colour], f"type[{HERE}.Colour]"),
        (typing.Self, "Self"),
        (list[FailsToShow()], "<GenericAlias object>"),
        (Annotated[int, FailsToShow()], "<_AnnotatedAlias object>"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_annotation_has_the_same_text_on_every_python(annotation, text):
    assert annotation_text(annotation) == text


def test_annotations_that_name_what_is_not_there():
    """They are evaluated when they are asked for only from Python 3.14 on."""
    namespace = {"Optional": Optional}
    source = "def f(a: Missing, b: list[Missing], *, c: Optional[int] = 1) -> Missing[str]: ..."
    if sys.version_info < (3, 14):
        source = f"from __future__ import annotations\n{source}"
    exec(source, namespace)
    assert Signature(namespace["f"], "f").text() == (
        "(a: Missing, b: list[Missing], *, c: Optional[int] = 1) -> Missing[str]"
    )


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the definition itself fails")
def test_annotations_that_cannot_be_evaluated():
    namespace = {"wraps": functools.wraps}
    exec("class C:\n  def f(self, a: 1 / 0, *, b: 'text' | None = 2) -> 1 / 0: ...", namespace)
    assert Signature(namespace["C"].f, "f").text() == "(self, a, *, b=2)"
    bound = Signature(namespace["C"]().f, "f")
    assert bound.text() == "(a, *, b=2)"
    with pytest.raises(ParametersError, match="missing 1 required argument: 'a'"):
        bound.check((), {})
    exec("@wraps(C.f)\ndef g(*args, **kwargs): ...", namespace)
    assert Signature(namespace["g"], "g").text() == "(*args, **kwargs)"
    assert Signature(functools.partial(namespace["C"].f, 1), "f").text() == "(*args, **kwargs)"


def test_annotations_hold_nothing():
    class Local:
        def f(self, a, b=None): ...

    Local.f.__annotations__ = {"a": Local, "b": list[Local], "return": Local}
    signature = Signature(Local.f, "f")
    assert ".Local, b: list[" in signature.text()
    reference = weakref.ref(Local)
    del Local
    gc.collect()
    assert reference() is None
