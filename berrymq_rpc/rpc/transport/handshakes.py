"""Who is refused before keys are looked at: libzmq ends such a handshake by itself."""

from itertools import islice

from ...runtime.log import Log
from .curve import host_of
from .monitor import ACCEPTED, CONNECTED, LOST, REFUSED

__all__ = ["Handshakes"]

logger = Log("berrymq_rpc.security")


class Handshakes:
    """Logs the connections of a listening socket with keys that end in their handshake.

    A peer without a key, or with another server's, is refused by libzmq, whose events do not say
    so. Each connection is accepted, and most of those that end before they have sent a message
    were refused. Which of them have got through is told by a number alone; it is taken for the
    oldest. So where several connect at one time, a refusal can be missed.

    Args:
        endpoint: the socket's address, for the log.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        #: The hosts of connections that have sent no message, by file number, the oldest first.
        self._silent: dict[int, str] = {}
        #: How many of them have got through their handshake.
        self._through = 0
        #: Refused ones whose end is still to come: a line was logged for each.
        self._refused = 0

    def see(self, event: int, value: int) -> None:
        """Take an event of the socket's monitor, in its order."""
        if event == ACCEPTED:
            host = host_of(value)
            self._silent[value] = "an unknown address" if host is None else host or "this host"
        elif event == CONNECTED:
            self._through += 1
        elif event == REFUSED:
            self._refused += 1
        elif event == LOST and value in self._silent:
            self._ended(value)

    def arrived(self, file: int) -> None:
        """A message came from a connection. The events before it have been seen."""
        if self._silent.pop(file, None) is not None and self._through:
            self._through -= 1
        self._settle()

    def _ended(self, file: int) -> None:
        is_through = file in islice(self._silent, self._through)
        host = self._silent.pop(file)
        if is_through:
            self._through -= 1
        elif self._refused:
            self._refused -= 1
        else:
            logger.warning(
                "a peer at %s refused at %s: it has no key, expects another server's, or broke off "
                "its handshake",
                host,
                self.endpoint,
            )
        self._settle()

    def _settle(self) -> None:
        if not self._silent:
            # Nothing is left to be mistaken about.
            self._through = self._refused = 0
