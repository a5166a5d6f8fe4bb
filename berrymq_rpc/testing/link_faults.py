"""What a test sets to go wrong between the listener of a `mem://` address and its diallers.

::

    faults = link_faults("mem://calc")
    faults.delay = 0.2
    faults.drop(towards="listener")
    faults.cut()
"""

import time

from ..rpc.transport.memory import End, MemoryPort, Name, Side, find_name, lock

__all__ = ["LinkFaults", "link_faults"]


def link_faults(endpoint: str) -> "LinkFaults":
    """The faults of one address, whether there are ports on it yet or not.

    They last as long as the object, or any port of the address, is kept. A test does best with an
    address of its own.

    Args:
        endpoint: `mem://name`.

    Raises:
        ValueError: the endpoint is malformed, or is the wildcard.
    """
    with lock:
        name = find_name(endpoint)
        if not isinstance(name.hook, LinkFaults):
            name.hook = LinkFaults(name)
        return name.hook


class LinkFaults:
    """What goes wrong on the connections of one address. Made by `link_faults`.

    All methods act at once, and may be called from any thread. What is under way is what was sent
    and has not been handed to the handler at the other side.
    """

    def __init__(self, name: Name) -> None:
        self._name = name
        self._delay = 0.0
        self._is_down = False
        self._is_silent = False
        self._drops: dict[Side, int] = {"dialler": 0, "listener": 0}
        self._duplicates: dict[Side, int] = {"dialler": 0, "listener": 0}
        self._frozen: MemoryPort | None = None
        #: What the frozen port did: a message that it sent, or `None` for a peer that it left.
        self._held: list[tuple[End, tuple[bytes, ...] | None]] = []

    @property
    def delay(self) -> float:
        """Seconds that a message or a close is under way, in each direction.

        The order is kept: once it is set to less, later messages wait for earlier ones.
        """
        return self._delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"a delay is 0 seconds or more, not {seconds!r}")
        with lock:
            self._delay = seconds

    def drop(self, count: int = 1, *, towards: Side) -> None:
        """Lose the next `count` messages that are sent towards one side."""
        with lock:
            self._drops[towards] += count

    def duplicate(self, count: int = 1, *, towards: Side) -> None:
        """Deliver the next `count` messages that are sent towards one side twice."""
        with lock:
            self._duplicates[towards] += count

    def cut(self) -> None:
        """Break each connection: what is under way is lost, and both ends notice.

        The diallers connect again by themselves, unless the link is down.
        """
        with lock:
            self._cut("the connection was cut")

    def down(self) -> None:
        """`cut`, and let no dialler connect until `up`."""
        with lock:
            self._is_down = True
            self._cut("the network is down")

    def up(self) -> None:
        """End what `down` began: the diallers connect."""
        with lock:
            self._is_down = False
            self._name.connect_all()

    def silence(self) -> None:
        """Cut the network so that no end notices: what is under way or sent is swallowed.

        Neither a close nor a new connection gets through until `restore`.
        """
        with lock:
            self._is_silent = True
            for end in self._name.ends():
                end.port.discard(end)

    def restore(self) -> None:
        """End what `silence` began.

        What was swallowed is gone. An end whose peer went away meanwhile notices now.
        """
        with lock:
            self._is_silent = False
            for end in self._name.ends():
                if end.is_open and not end.other.is_open:
                    end.lose("the peer went away while the network was cut")
            self._name.connect_all()

    def freeze(self) -> None:
        """Stop the listener as SIGSTOP does: it reads nothing, and what it sends stays with it.

        Everything is kept until `thaw`, also what peers sent that have given up meanwhile.
        Diallers that come now are connected then.

        Raises:
            LookupError: there is no listener.
        """
        with lock:
            listener = self._listener()
            if self._frozen is not listener:
                # The one that was frozen has been killed.
                self._frozen, self._held = listener, []

    def thaw(self) -> None:
        """End what `freeze` began. Nothing happens where nothing is frozen."""
        with lock:
            self._thaw()
            self._name.connect_all()

    def kill(self) -> None:
        """End the listener as SIGKILL does: its handler is not called again, its peers notice.

        What it had sent arrives. The address is free at once.

        Raises:
            LookupError: there is no listener.
        """
        with lock:
            listener = self._listener()
            listener.shut("the peer was killed")
            listener.call(listener.finish)

    def _listener(self) -> MemoryPort:
        if self._name.listener is None:
            raise LookupError(f"no port listens on {self._name.endpoint}")
        return self._name.listener

    def _cut(self, reason: str) -> None:
        for end in self._name.ends():
            end.port.discard(end)
            if end.is_open:
                end.lose(reason)

    def _thaw(self) -> None:
        port, self._frozen = self._frozen, None
        held, self._held = self._held, []
        if port is None or port.is_closed:
            return
        for end, frames in held:
            if frames is None:
                end.leave("the peer ended the connection")
                continue
            end.queued -= sum(map(len, frames))
            if end.is_open:
                port.transmit(end, frames)
        port.wake()

    # -- what the transport asks (`rpc.transport.memory.LinkHook`) -----------------------------

    @property
    def is_broken(self) -> bool:
        return self._is_down or self._is_silent

    @property
    def is_silent(self) -> bool:
        return self._is_silent

    def due(self) -> float:
        return time.monotonic() + self._delay if self._delay else 0.0

    def copies(self, end: End, frames: tuple[bytes, ...]) -> int:
        if end.port is self._frozen:
            end.queued += sum(map(len, frames))
            self._held.append((end, frames))
            return 0
        if self._is_silent:
            return 0
        towards = end.other.port.side
        if self._drops[towards] > 0:
            self._drops[towards] -= 1
            return 0
        if self._duplicates[towards] > 0:
            self._duplicates[towards] -= 1
            return 2
        return 1

    def is_frozen(self, port: MemoryPort) -> bool:
        return port is self._frozen

    def holds_disconnect(self, end: End) -> bool:
        if end.port is not self._frozen:
            return False
        self._held = [held for held in self._held if held[0] is not end]
        self._held.append((end, None))
        return True

    def port_closing(self, port: MemoryPort) -> None:
        if port is self._frozen:
            self._thaw()
