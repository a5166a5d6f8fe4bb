"""The methods that the page may call: those that look, and where it may write, all the others."""

from ...errors import PermissionDeniedError
from ...monitor.monitor import STATE
from ...rpc.describe import describe
from ...rpc.dispatcher import DESCRIBE
from ...rpc.method import Method
from ...rpc.method_table import HandlerTable
from ...rpc.signature import bounded_repr

__all__ = ["STATE", "PageTable"]

#: The method that answers what the page may do, and whether there are messages.
ABOUT = "rpc.page"

#: Those of the bridge's own methods that change nothing but what the caller gets.
_LOOKING = ("subscribe", "unsubscribe", "rpc.discover", DESCRIBE)


class PageTable(HandlerTable):
    """The methods of a page.

    Args:
        served: those of the bridge.
        looking: further ones that change nothing.
        may_write: whether the page may call all methods.
    """

    __slots__ = ("_may_write", "_served")

    def __init__(
        self, served: HandlerTable, looking: dict[str, Method], *, may_write: bool
    ) -> None:
        own = {name: served.methods[name] for name in _LOOKING if name in served.methods}
        own.setdefault(DESCRIBE, Method.of(DESCRIBE, lambda: describe(served)))
        own |= looking
        about = {"write": may_write, "messages": "subscribe" in own}
        own[ABOUT] = Method.of(ABOUT, lambda: about)
        super().__init__((served.methods if may_write else {}) | own, {})
        self._served = served
        self._may_write = may_write

    def find(self, name: object) -> Method:
        """The method of a name.

        Raises:
            NotFoundError: there is none.
            PermissionDeniedError: it may change something, and the page may not.
        """
        if self._may_write:
            return self._served.find(name)
        raise PermissionDeniedError(
            f"the page may look only, and not call {bounded_repr(name, 100)}: give page_write=True "
            "to serve_http, or --http-write to berrymq serve"
        )

    def waits(self, method: Method) -> bool:
        return self._served.waits(method)
