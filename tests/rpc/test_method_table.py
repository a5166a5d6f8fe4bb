import asyncio
import collections
import collections.abc
import enum
import functools
import gc
import types
import warnings
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berrymq_rpc.errors import NotFoundError
from berrymq_rpc.rpc import method_table as table_module
from berrymq_rpc.rpc.handler import AbstractHandler, AttrHandler
from berrymq_rpc.rpc.method import Kind, method
from berrymq_rpc.rpc.method_table import collect_methods

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import aiozmq.rpc as foreign
except ImportError:
    foreign = None

needs_aiozmq = pytest.mark.skipif(foreign is None, reason="aiozmq does not import here")

#: What is said where no name is close.
MARKED = "; is it marked with @rpc.method?"


def names(handler):
    return [each.name for each in collect_methods(handler)]


@method
def function(a, b=0):
    return a + b


def unmarked(): ...


class Math(AttrHandler):
    @method
    def add(self, a, b):
        return a + b


class Base(AttrHandler):
    @method
    def inherited(self):
        return "inherited"

    @method
    def hidden(self): ...

    @method
    def overridden(self): ...


class Handler(Base):
    of_class = Math()

    def __init__(self):
        self.math = Math()
        self.table = {"function": function, "inner": {"not an identifier": function}}
        self.stored = function
        self.partial = method(functools.partial(function, 1))
        self.unmarked = unmarked
        self._hidden_namespace = Math()
        self.text = "text"
        self.list = [function]

    def hidden(self): ...

    @method
    async def overridden(self):
        return self

    @method
    def _private(self): ...

    @method
    @staticmethod
    def static(): ...

    @classmethod
    @method
    def of_the_class(cls):
        return cls

    @property
    def running(self):
        raise AssertionError("a property was run")

    @functools.cached_property
    def running_once(self):
        raise AssertionError("a property was run")


def test_names_of_an_attribute_handler():
    assert names(Handler()) == [
        "inherited",
        "math.add",
        "of_class.add",
        "of_the_class",
        "overridden",
        "partial",
        "static",
        "stored",
        "table.function",
        "table.inner.not an identifier",
    ]


def test_what_is_found_can_be_called():
    handler = Handler()
    table = collect_methods(handler)
    assert table.find("math.add").function(1, 2) == 3
    assert table.find("inherited").function() == "inherited"
    assert table.find("of_the_class").function() is Handler
    assert table.find("stored").function(1) == 1
    assert table.find("partial").function(2) == 3
    assert table.find("overridden").kind is Kind.COROUTINE
    assert asyncio.run(table.find("overridden").function()) is handler
    assert table.find("math.add") is table.methods["math.add"]
    assert table.find("math.add").name == "math.add"


def test_the_table():
    table = collect_methods(Handler())
    assert len(table) == len(table.methods) == len(list(table)) == 10
    assert repr(table) == "<HandlerTable of 10 methods>"


def test_what_is_set_later_is_not_found():
    handler = Handler()
    table = collect_methods(handler)
    handler.later = function
    handler.table["later"] = function
    for name in ("later", "table.later"):
        with pytest.raises(NotFoundError):
            table.find(name)


def test_slots_are_namespaces():
    class Slotted(AttrHandler):
        __slots__ = ("function", "math", "unset")

        def __init__(self):
            self.math = Math()
            self.function = function

    assert names(Slotted()) == ["function", "math.add"]
    assert collect_methods(Slotted()).find("function").function(1) == 1


def test_an_instance_attribute_hides_a_method():
    handler = Math()
    handler.add = unmarked
    assert names(handler) == []


def test_a_callable_object_of_the_class_is_not_bound():
    class Call:
        __rpc__ = {}  # noqa: RUF012

        def __call__(self, a):
            return a

    class Holder(AttrHandler):
        call = Call()

    assert collect_methods(Holder()).find("call").function(1) == 1


def test_attributes_that_python_cannot_name():
    handler = Math()
    vars(handler).update({"a.b": function, "": function, 1: function, "with space": function})
    assert names(handler) == ["add", "with space"]


class Name(enum.Enum):
    FUNCTION = 1


class TextName(str, enum.Enum):  # noqa: UP042
    FUNCTION = "function"


def test_mappings():
    mapping = {
        "function": function,
        "math": Math(),
        "unmarked": unmarked,
        "lambda": lambda: None,
        "_private": function,
        "": function,
        "with space": function,
        "été": function,
        "proxy": types.MappingProxyType({"function": function}),
        "empty": {},
        "list": [function],
        "text": "text",
        "class": Math,
        "enum": Name,
    }
    expected = ["function", "math.add", "proxy.function", "with space", "été"]
    assert names(mapping) == expected
    assert names(collections.ChainMap({}, mapping)) == expected


def test_a_key_that_is_an_enums_member_and_text():
    table = collect_methods({TextName.FUNCTION: function})
    assert [type(name) for name in table.methods] == [str]
    assert table.find("function").name == "function"


def test_a_default_of_a_mapping_is_not_made():
    mapping = collections.defaultdict(dict, function=function)
    with pytest.raises(NotFoundError):
        collect_methods(mapping).find("other")
    assert list(mapping) == ["function"]


@pytest.mark.parametrize("key", [1, None, b"function", ("a", "b"), Name.FUNCTION])
def test_keys_that_are_no_text(key):
    with pytest.raises(ValueError, match="names in a handler are text, not"):
        collect_methods({key: function})
    with pytest.raises(ValueError, match="names in a handler are text, not"):
        collect_methods({"inner": {key: function}})


@pytest.mark.parametrize("key", ["a.b", ".", "a."])
def test_keys_with_a_dot(key):
    with pytest.raises(ValueError, match="the dot stands between namespaces"):
        collect_methods({"inner": {key: function}})


def test_data_of_a_handler_may_have_any_keys():
    handler = Math()
    handler.data = {1: function, "a.b": function, "inner": {None: {}, "function": function}}
    assert names(handler) == ["add", "data.inner.function"]


def test_data_may_be_large_and_refer_to_itself():
    handler = Math()
    handler.chain = end = {}
    for _ in range(10_000):
        end["next"] = end = {}
    nodes = [{} for _ in range(30)]
    for node in nodes:
        node.update({f"node{number}": other for number, other in enumerate(nodes)})
    handler.nodes = nodes[0]
    assert names(handler) == ["add"]


def test_deep_names():
    handler = function
    for _ in range(100):
        handler = {"a": handler}
    assert names(handler) == [".".join(["a"] * 100)]
    assert names({"a": handler, "b": function}) == ["b"]


def test_a_namespace_within_itself_is_left_out():
    parent, child = Math(), Math()
    parent.child, child.parent, parent.itself = child, parent, parent
    assert names(parent) == ["add", "child.add"]
    mapping = {"function": function}
    mapping["inner"] = {"outer": mapping, "function": function}
    assert names(mapping) == ["function", "inner.function"]


def test_one_namespace_under_two_names():
    math = Math()
    assert names({"a": math, "b": {"c": math}}) == ["a.add", "b.c.add"]


def test_namespaces_that_all_refer_to_one_another(monkeypatch):
    monkeypatch.setattr(table_module, "MAX_NAMES", 1000)
    handlers = [Math() for _ in range(10)]
    for handler in handlers:
        vars(handler).update({f"other{number}": other for number, other in enumerate(handlers)})
    with pytest.raises(ValueError, match="do its namespaces refer to one another"):
        collect_methods(handlers[0])


class LooksLikeAList(collections.abc.Sequence):
    def __getitem__(self, index): ...

    def __len__(self):
        return 0


@pytest.mark.parametrize(
    "handler", [None, 1, "text", b"bytes", [], [function], (function,), function, LooksLikeAList()]
)
def test_no_handler(handler):
    with pytest.raises(TypeError, match=r"^a handler is an instance of AttrHandler or .*, not "):
        collect_methods(handler)


@pytest.mark.parametrize("handler", [Math, Name])
def test_a_class_is_no_handler(handler):
    with pytest.raises(TypeError, match=f"not the class {handler.__qualname__} itself"):
        collect_methods(handler)


@pytest.mark.parametrize("reserved", [function, {"function": function}, Math()])
def test_the_name_rpc_is_reserved(reserved):
    handler = Math()
    handler.rpc = reserved
    for root in (handler, {"rpc": reserved}):
        with pytest.raises(ValueError, match=r"reserves names that begin with 'rpc\.'"):
            collect_methods(root)
    assert names({"inner": {"rpc": function}, "rpcs": function}) == ["inner.rpc", "rpcs"]


def test_data_may_be_named_rpc():
    handler = Math()
    handler.rpc = {"a": 1}
    assert names(handler) == ["add"]


def test_a_wrong_mark_is_told_at_start():
    @functools.wraps(method(thread=True)(lambda: None))
    async def wrong(): ...

    with pytest.raises(TypeError, match=r"^inner\.wrong: thread=True"):
        collect_methods({"inner": {"wrong": wrong}})


NOT_THERE = [
    "",
    ".",
    "..",
    "add.",
    ".add",
    "math..add",
    "math",
    "math.add.add",
    "math.add.__call__",
    "math.add.__func__.__globals__",
    "unmarked",
    "hidden",
    "list",
    "list.0",
    "text.upper",
    "running",
    "running_once",
    "_private",
    "_hidden_namespace.add",
    "__init__",
    "__class__",
    "__class__.add",
    "__dict__",
    "__dict__.sub.hi",
    "__slots__.x",
    "__getitem__",
    "table.items",
    "table.get",
    "of_class.__class__.add",
    "x" * 10_000_000,
    "." * 100_000,
    ".".join(["math"] * 10_000),
    "math.add\0",
    "\ud800",
    "\N{BELL}" * 1000,
]
NO_NAMES = [None, 1, 1.5, b"math.add", bytearray(b"add"), ("math", "add"), ["add"], {}, {"add"}]


class Recorder(AbstractHandler):
    """Gives itself for a name, and remembers what it was asked for."""

    def __init__(self):
        self.keys = []

    def __getitem__(self, key):
        self.keys.append(key)
        if key == "function":
            return function
        return self


TABLES = [
    collect_methods(handler)
    for handler in (
        Handler(),
        {"math": Math()},
        {},
        Recorder(),
        {"math": Recorder(), "add": Math()},
    )
]


@pytest.mark.parametrize("name", NOT_THERE, ids=lambda name: ascii(name[:30]))
def test_what_is_not_exported_is_not_found(name):
    for table in TABLES:
        with pytest.raises(NotFoundError) as caught:
            table.find(name)
        text = str(caught.value)
        text.encode()
        assert len(text) < 200
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_what_is_no_text_is_not_found(name):
    for table in TABLES:
        with pytest.raises(NotFoundError, match=f"must be text, not {type(name).__name__}"):
            table.find(name)


anything = st.text() | st.lists(
    st.sampled_from(["math", "add", "_x", "__class__", "", "function", "table", "rpc"])
).map(".".join)


@given(anything)
def test_any_text_is_found_or_not_found(name):
    for table in TABLES:
        try:
            found = table.find(name)
        except NotFoundError:
            continue
        assert found.name == name
        assert not any(part.startswith("_") for part in name.split("."))


def text_for(handler, name):
    with pytest.raises(NotFoundError) as caught:
        collect_methods(handler).find(name)
    return str(caught.value)


def test_the_error_suggests_what_is_near():
    assert text_for(Handler(), "math.ad") == "no method 'math.ad'; is it 'math.add'?"
    assert text_for(Handler(), "mth.add") == "no method 'mth.add'; is it 'math.add'?"
    assert text_for(Handler(), "inherit") == "no method 'inherit'; is it 'inherited'?"
    assert text_for(Handler(), "something") == f"no method 'something'{MARKED}"


def test_the_error_tells_nothing_of_what_is_not_exported():
    assert text_for(Handler(), "hiden") == f"no method 'hiden'{MARKED}"
    assert text_for(Handler(), "_privat") == f"no method '_privat'{MARKED}"


def test_no_suggestion_where_it_would_cost_too_much():
    assert text_for({"x" * 60: function}, "x" * 59) == f"no method '{'x' * 59}'"
    handler = {f"method_{number}": function for number in range(1000)}
    assert text_for(handler, "metod_12") == "no method 'metod_12'"


class Asked:
    def __init__(self, **values):
        self.values = values

    def __getitem__(self, key):
        return self.values[key]


def test_an_object_with_getitem_is_asked_at_each_call():
    asked = Asked(math=Math(), function=function)
    table = collect_methods(asked)
    assert len(table) == 0
    assert table.find("math.add").function(1, 2) == 3
    assert table.find("math.add").name == "math.add"
    assert table.find("function").function(1) == 1
    asked.values["later"] = {"function": function}
    assert table.find("later.function").function(1) == 1
    del asked.values["function"]
    with pytest.raises(NotFoundError):
        table.find("function")


def test_an_object_with_getitem_is_a_namespace_anywhere():
    handler = Handler()
    handler.asked = Asked(inner={"asked": Asked(function=function)})
    for root, before in ((handler, ""), ({"root": handler}, "root.")):
        table = collect_methods(root)
        assert table.find(f"{before}asked.inner.asked.function").function(1) == 1
        assert table.find(f"{before}math.add").function(1, 2) == 3
        for name in ("asked", "asked.inner", "asked.function", "nothing.function"):
            with pytest.raises(NotFoundError):
                table.find(before + name)


@pytest.mark.parametrize(
    "value",
    [None, 1, "text", b"bytes", [function], unmarked, Math, Name, len, list[int], Asked(), {}, []],
)
def test_what_an_object_gives_must_be_marked(value):
    table = collect_methods(Asked(value=value, inner={"value": value}))
    for name in ("value", "inner.value", "value.upper", "value.RED", "value.0", "value.x"):
        with pytest.raises(NotFoundError):
            table.find(name)


def test_a_mapping_that_an_object_gives_makes_no_defaults():
    mapping = collections.defaultdict(lambda: function)
    with pytest.raises(NotFoundError):
        collect_methods(Asked(inner=mapping)).find("inner.other")
    assert not mapping


def test_attributes_of_a_handler_that_an_object_gives():
    table = collect_methods(Asked(inner=Handler()))
    assert table.find("inner.math.add").function(1, 2) == 3
    for name in ("hidden", "_private", "running", "__class__", "_hidden_namespace.add", "text"):
        with pytest.raises(NotFoundError):
            table.find(f"inner.{name}")


def test_an_object_is_asked_for_public_names_only():
    recorder = Recorder()
    table = collect_methods(recorder)
    for name in (
        "_private",
        "a._private",
        "__class__",
        "a..b",
        "",
        ".",
        "a.",
        "rpc.discover",
        "rpc",
        "x" * 1001,
        ".".join("a" * 101),
        "." * 1_000_000,
    ):
        with pytest.raises(NotFoundError):
            table.find(name)
    assert recorder.keys == []
    table.find("a.b.function")
    assert recorder.keys == ["a", "b", "function"]


def test_an_attribute_handler_with_a_getitem_of_its_own_is_asked():
    class Choosy(Math):
        def __getitem__(self, key):
            if key == "add":
                raise KeyError(key)
            return super().__getitem__("add" if key == "plus" else key)

    table = collect_methods(Choosy())
    assert len(table) == 0
    assert table.find("plus").function(1, 2) == 3
    with pytest.raises(NotFoundError):
        table.find("add")


class Fails:
    def __init__(self, error):
        self.error = error

    def __getitem__(self, key):
        raise self.error


@pytest.mark.parametrize("error", [KeyError, IndexError, LookupError, NotFoundError])
def test_a_lookup_error_of_an_object(error):
    assert text_for(Fails(error("secret")), "name") == f"no method 'name'{MARKED}"


@pytest.mark.parametrize(
    "error",
    [
        AttributeError,
        TypeError,
        RuntimeError,
        OSError,
        RecursionError,
        StopIteration,
        SystemExit,
        GeneratorExit,
        asyncio.CancelledError,
    ],
)
def test_any_other_error_of_an_object(error):
    with pytest.raises(NotFoundError) as caught:
        collect_methods({"inner": Fails(error("secret"))}).find("inner.name")
    assert str(caught.value) == "no method 'inner.name': looking it up failed"
    assert type(caught.value.__cause__) is error


def test_ctrl_c_while_an_object_is_asked():
    with pytest.raises(KeyboardInterrupt):
        collect_methods(Fails(KeyboardInterrupt())).find("name")


def test_a_wrong_mark_that_an_object_gives():
    @functools.wraps(method(thread=True)(lambda: None))
    async def wrong(): ...

    with pytest.raises(NotFoundError) as caught:
        collect_methods(Asked(wrong=wrong)).find("wrong")
    assert isinstance(caught.value.__cause__, TypeError)


class Bound:
    """Gives a function of its own that is bound anew for each call."""

    @method(waits=True)
    async def run(self, a):
        """Run."""

    def __getitem__(self, key):
        if key == "unbound":
            return Bound.run
        if key == "partial":
            return method(functools.partial(function, 1))
        return self.run


def test_signatures_are_read_once_for_each_function():
    table = collect_methods({"one": Bound(), "two": Bound()})
    first, again, other = (table.find(name) for name in ("one.run", "one.run", "two.walk"))
    assert first.signature is again.signature
    assert first.function == again.function
    assert first.function != other.function
    assert str(other.signature) == "two.walk(a)"
    assert other.signature.parameters is first.signature.parameters
    assert other.name == "two.walk"
    assert (again.kind, again.waits, again.doc) == (Kind.COROUTINE, True, "Run.")


def test_a_function_and_the_same_bound_have_signatures_of_their_own():
    table = collect_methods(Bound())
    for _ in range(2):
        assert str(table.find("run").signature) == "run(a)"
        assert str(table.find("unbound").signature) == "unbound(self, a)"
        assert str(table.find("partial").signature) == "partial(b=0)"


def test_kept_signatures_keep_no_function_and_no_object():
    class Making:
        def __getitem__(self, key):
            return method(lambda a: self)

    making = Making()
    table = collect_methods({"making": making, "bound": Bound()})
    found = table.find("making.name").function
    table.find("bound.run")
    reference = weakref.ref(found)
    del found
    gc.collect()
    assert reference() is None


def test_kept_signatures_are_bounded(monkeypatch):
    monkeypatch.setattr(table_module, "MAX_SIGNATURES", 3)
    functions = {f"name{number}": method(lambda a: a) for number in range(10)}
    table = collect_methods(Asked(**functions))
    for name, value in functions.items():
        assert table.find(name).function is value
        assert table.kept_signatures <= 3
    assert table.find("name9").signature is table.find("name9").signature


@needs_aiozmq
class TestHandlersWrittenForAiozmq:
    def handler(self):
        class Inner(foreign.AttrHandler):
            @foreign.method
            def add(self, a, b: int = 1):
                return a + b

        class Outer(foreign.AttrHandler):
            def __init__(self):
                self.inner = Inner()
                self.table = {"add": self.inner.add, 1: 2}
                self._inner = Inner()

            @foreign.method
            async def wait(self): ...

            @foreign.method
            async def items(self):
                yield 1

            @method(thread=True)
            def block(self): ...

            @foreign.method
            def _private(self): ...

            def unmarked(self): ...

            @property
            def running(self):
                raise AssertionError("a property was run")

        return Outer()

    def test_names(self):
        assert names(self.handler()) == ["block", "inner.add", "items", "table.add", "wait"]

    def test_methods(self):
        table = collect_methods(self.handler())
        assert table.find("inner.add").function(1) == 2
        assert str(table.find("inner.add").signature) == "inner.add(a, b: int = 1)"
        kinds = [table.find(name).kind for name in ("inner.add", "wait", "items", "block")]
        assert kinds == [Kind.SYNC, Kind.COROUTINE, Kind.STREAM, Kind.THREAD]

    @pytest.mark.parametrize(
        "name",
        ["__dict__.inner.add", "__class__", "_private", "_inner.add", "running.add", "unmarked"],
    )
    def test_nothing_else(self, name):
        for root, before in ((self.handler(), ""), (Asked(inner=self.handler()), "inner.")):
            with pytest.raises(NotFoundError):
                collect_methods(root).find(before + name)

    def test_within_one_that_is_asked(self):
        table = collect_methods(Asked(inner=self.handler()))
        assert table.find("inner.inner.add").function(1) == 2

    def test_one_with_a_getitem_of_its_own(self):
        class Choosy(foreign.AttrHandler):
            @foreign.method
            def add(self, a):
                return a

            def __getitem__(self, key):
                return super().__getitem__("add" if key == "plus" else key)

        table = collect_methods(Choosy())
        assert table.find("plus").function(1) == 1
        with pytest.raises(NotFoundError):
            table.find("nothing")

    def test_mappings_and_abstract_handlers(self):
        class Single(foreign.AbstractHandler):
            def __getitem__(self, key):
                return added

        @foreign.method
        def added(a):
            return a

        table = collect_methods({"added": added, "single": Single()})
        assert table.find("added").function(1) == 1
        assert table.find("single.anything").function(1) == 1

    def test_what_is_marked_here_is_marked_there(self):
        assert hasattr(function, "__rpc__")
        assert isinstance(Math(), foreign.AbstractHandler)
        assert Math()["add"](1, 2) == 3
