"""A server with a method for everything that a handler may return or raise."""

import asyncio

from berrymq_rpc import rpc


class Odd(Exception):
    """Not known to any client."""


class Unshown(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


class Unnamed(type):
    @property
    def __name__(cls):
        raise RuntimeError("no name")

    __module__ = __name__


class Anonymous(Exception, metaclass=Unnamed):
    pass


class Unequal(BaseException):
    def __init__(self, first, second):
        super().__init__(first, second)


class Stubborn:
    def __repr__(self):
        raise SystemExit(5)

    __getattr__ = __eq__ = __hash__ = __len__ = __str__ = __repr__


def recursive():
    value = []
    value.append(value)
    return value


def cyclic():
    error = ValueError("cyclic")
    error.args = (error,)
    error.__cause__ = error.__context__ = error
    return error


def chained():
    error = Odd("first")
    for number in range(2000):
        following = Odd(number)
        following.__context__ = error
        error = following
    return error


def groups(levels):
    error = ValueError("inner")
    for _ in range(levels):
        error = ExceptionGroup("group", [error])
    return error


RESULTS = {
    "object": object,
    "big": lambda: 2**70,
    "huge": lambda: 2**100_000,
    "int_keys": lambda: {1: 2, (3, 4): 5},
    "surrogate": lambda: "\ud800",
    "recursive": recursive,
    "recursive_dict": lambda: {"self": recursive()},
    "deep": lambda: __import__("functools").reduce(lambda v, _: [v], range(5000), 0),
    "stubborn": Stubborn,
    "function": lambda: print,
    "generator": lambda: (n for n in range(3)),
    "coroutine": lambda: Stubborn,
    "exception": lambda: ValueError("as a value"),
    "large": lambda: "x" * (2 << 20),
    "bytes": lambda: bytes(100 << 20),
    "none": lambda: None,
    "nan": lambda: float("nan"),
    "lock": lambda: __import__("threading").Lock(),
}

ERRORS = {
    "system_exit": lambda: SystemExit(3),
    "cancelled": lambda: asyncio.CancelledError("by itself"),
    "generator_exit": GeneratorExit,
    "stop_iteration": lambda: StopIteration(5),
    "stop_async_iteration": lambda: StopAsyncIteration(5),
    "base": lambda: BaseException("base"),
    "unequal": lambda: Unequal(1, 2),
    "group": lambda: ExceptionGroup("group", [ValueError(1), Odd(2)]),
    "base_group": lambda: BaseExceptionGroup("group", [SystemExit(1), KeyError("k")]),
    "deep_group": lambda: groups(500),
    "wide_group": lambda: ExceptionGroup("group", [Odd("x" * 1000)] * 10_000),
    "unpackable": lambda: ValueError(object(), 1),
    "stubborn": lambda: ValueError(Stubborn()),
    "unshown": Unshown,
    "anonymous": Anonymous,
    "file": lambda: FileNotFoundError(2, "No such file", "/a/b"),
    "timeout": lambda: TimeoutError("the handler's own"),
    "ours": lambda: rpc.RPCTimeoutError("of a call of the handler's"),
    "lost": lambda: rpc.ConnectionLostError("of a call of the handler's"),
    "odd": lambda: Odd("a", 1),
    "large": lambda: ValueError("x" * (10 << 20)),
    "many": lambda: ValueError(*range(100_000)),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    "key": lambda: KeyError("key"),
    "surrogate": lambda: ValueError("\ud800"),
    "cyclic": cyclic,
    "chained": chained,
    "recursion": lambda: RecursionError("as raised by Python"),
    "memory": MemoryError,
    "assertion": lambda: AssertionError(),
    "import": lambda: ImportError("none", name="n", path="p"),
    "syntax": lambda: SyntaxError("bad", ("f", 1, 2, "text")),
}


def exported(name, make, raises):
    def sync():
        if raises:
            raise make()
        return make()

    async def coroutine():
        await asyncio.sleep(0)
        return sync()

    def thread():
        return sync()

    async def stream():
        yield 1
        if raises:
            raise make()
        yield make()

    return {
        "sync_" + name: rpc.method(sync),
        "coroutine_" + name: rpc.method(coroutine),
        "thread_" + name: rpc.method(thread, thread=True),
        "stream_" + name: rpc.method(stream),
    }


async def main():
    handler = {"results": {}, "errors": {}}
    handler["names"] = rpc.method(lambda: (list(RESULTS), list(ERRORS)))
    handler["add"] = rpc.method(lambda a, b=1: a + b)
    for name, make in RESULTS.items():
        handler["results"] |= exported(name, make, False)
    for name, make in ERRORS.items():
        handler["errors"] |= exported(name, make, True)
    server = await rpc.start_server(handler, bind="tcp://127.0.0.1:*")
    async with server:
        print(server.endpoints[0], flush=True)
        await server.wait_closed()


asyncio.run(main())
