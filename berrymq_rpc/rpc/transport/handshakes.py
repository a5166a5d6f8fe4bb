"""Who is refused before keys are looked at: libzmq ends such a handshake by itself."""

from ...runtime.log import Log
from .curve import host_of
from .monitor import ACCEPTED, BROKEN_OFF, CONNECTED, LOST, REFUSED

__all__ = ["Handshakes"]

logger = Log("berrymq_rpc.security")


class Handshakes:
    """Logs the connections of a listening socket with keys that end in their handshake.

    A peer without a key, or with another server's, is refused by libzmq. Its events name a
    connection when it is accepted and when it ends, but not when the handshake is done. One that
    ends is known not to have got through where none has since it was accepted, or where libzmq says
    so. Others are given the benefit of the doubt: where several connect at one time, a refusal can
    be missed.

    Args:
        endpoint: the socket's address, for the log.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        #: The open connections, by file number: the host, and how many had got through by then.
        self._open: dict[int, tuple[str, int]] = {}
        #: How many have got through their handshake.
        self._through = 0
        #: Refused ones whose end is still to come: a line was logged for each.
        self._refused = 0
        #: Whether the connection that ends next has not got through.
        self._is_broken_off = False

    def see(self, event: int, value: int) -> None:
        """Take an event of the socket's monitor, in its order."""
        if event == ACCEPTED:
            host = host_of(value)
            shown = "an unknown address" if host is None else host or "this host"
            self._open[value] = shown, self._through
        elif event == CONNECTED:
            self._through += 1
        elif event == REFUSED:
            self._refused += 1
        elif event == BROKEN_OFF:
            self._is_broken_off = True
        elif event == LOST:
            self._lost(value)

    def _lost(self, file: int) -> None:
        host, through = self._open.pop(file, ("", -1))
        is_known = through == self._through or self._is_broken_off
        self._is_broken_off = False
        if self._refused:
            self._refused -= 1
        elif host and is_known:
            logger.warning(
                "a peer at %s refused at %s: it has no key, expects another server's, or broke off "
                "its handshake",
                host,
                self.endpoint,
            )
