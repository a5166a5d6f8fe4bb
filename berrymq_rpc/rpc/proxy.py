"""``client.rpc.a.b.c(...)``: attribute access that builds the name of a method."""

from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

__all__ = ["MethodProxy", "Namespace", "no_attribute"]

Result = TypeVar("Result")

#: Names kept as attributes, so that the second use of one costs no more than any attribute.
#: A program that makes names up as it runs must not fill the memory with them.
MAX_KEPT = 1000

Sender = Callable[[str, tuple[Any, ...], dict[str, Any]], Result]


def no_attribute(client: object, name: str) -> AttributeError:
    """The error for a method that was looked up on the client itself."""
    text = f"{type(client).__name__!r} object has no attribute {name!r}"
    if not name.startswith("_"):
        text += f": methods of the server are called by client.rpc.{name}(...)"
    return AttributeError(text, name=name, obj=client)


class Namespace(Generic[Result]):
    """The root: its attributes are methods and namespaces of the peer."""

    _prefix = ""

    def __init__(self, send: Sender[Result]) -> None:
        self._send = send

    def __getattr__(self, name: str) -> "MethodProxy[Result]":
        if name.startswith("_"):
            raise AttributeError(f"{name!r} begins with '_': no peer exports such a name")
        proxy = MethodProxy(self._send, self._prefix + name)
        if len(self.__dict__) < MAX_KEPT:
            self.__dict__[name] = proxy
        return proxy

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._prefix}*>"


class MethodProxy(Namespace[Result]):
    """One name: call it, or use it as a namespace."""

    def __init__(self, send: Sender[Result], name: str) -> None:
        super().__init__(send)
        self._name = name
        self._prefix = name + "."

    def __call__(self, /, *args: Any, **kwargs: Any) -> Result:
        return self._send(self._name, args, kwargs)

    def __await__(self) -> NoReturn:
        raise TypeError(f"{self._name!r} is not called: write await ...{self._name}()")

    def __repr__(self) -> str:
        return f"<MethodProxy {self._name}>"
