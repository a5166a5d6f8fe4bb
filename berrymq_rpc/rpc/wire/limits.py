"""The bounds of a client or server, each with its default and the reason for the number."""

from dataclasses import dataclass, fields

__all__ = ["CONNECT_TIMEOUT", "FOREIGN_SIZE", "MAX_VALUES", "Limits"]

#: Seconds that a call waits for a connection: long enough for a server to start, short enough
#: for a person to wait.
CONNECT_TIMEOUT = 5.0

#: Twice this and a frozen peer is noticed. Shorter makes idle connections busy, longer makes
#: people wait.
HEARTBEAT = 2.0

#: Structured bytes decode at about 100 MB/s in the worst case, and a message must not hold the
#: event loop for more than 100 ms, so 1 MiB leaves a wide margin.
MAX_MESSAGE = 1 << 20

#: A message of an aiozmq.rpc peer may be so many times as large: it knows no bound of ours, and
#: 4 MiB decode within a second.
FOREIGN_SIZE = 4

#: Frames of bytes are not decoded, so they may be larger; 64 MiB holds an image or a wave form.
MAX_FRAME = 64 << 20

#: Below ZeroMQ's default high-water mark of 1,000 messages, so that no answer meets a full
#: queue even when each travels alone (measured: 500 and 900 lose none, 3,000 loses 1,146).
WINDOW = 500

#: Calls in flight of all peers together; 10,000 idle tasks take some 30 MB.
MAX_IN_FLIGHT = 10_000

#: Calls that wait for something (`waits=True`) and streams of one peer: they hold no slot of
#: the window, only a task. 10,000 that wait for messages take some 20 MB; there must be room for
#: streams besides them.
MAX_WAITING = 20_000

#: Those of all peers together, so that one peer has at most a tenth: some 400 MB.
MAX_ALL_WAITING = 200_000

#: A ROUTER takes 27 KiB a peer by itself, so this is some 350 MB at most.
MAX_PEERS = 10_000

#: Bytes of calls from a peer without a window (aiozmq.rpc) that wait for their turn, with some
#: 500 for what each takes as an object: about 30,000 small ones.
MAX_QUEUED_CALL_BYTES = 16 << 20

#: Bytes that wait here for one peer that does not read them. With what the transport has, such a
#: peer costs less than 10 MB.
MAX_QUEUED_BYTES = 5 << 20

#: The same of all peers together, so that one peer has at most a tenth.
MAX_ALL_QUEUED_CALL_BYTES = 160 << 20
MAX_ALL_QUEUED_BYTES = 50 << 20

#: Nesting of arrays and maps; people's data has less than 20 levels.
MAX_DEPTH = 100

#: Values of one JSON text. Of the kinds that take longest, empty arrays and objects, 1 MiB holds
#: 700,000, which are made in some 60 ms.
MAX_VALUES = 1_000_000

#: Items of a stream under way to a reader before it asks for more.
STREAM_WINDOW = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one client or server. Over a bound there is a clear error, never silence.

    Args:
        heartbeat: seconds; a frozen peer or cut network is noticed within twice as long.
        max_message: bytes of one structured message: a call's arguments or a result, without
            the byte strings that travel as frames of their own. `TooLargeError` over it.
        max_frame: bytes of one byte string that travels as a frame of its own.
        window: calls in flight of one peer. A native peer keeps the rest in its own process.
        max_in_flight: calls in flight of all peers together; `OverloadedError` over it.
        max_waiting: `waits=True` calls and streams of one peer; `OverloadedError` over it.
        max_all_waiting: those of all peers together; `OverloadedError` over it.
        max_peers: peers at one time; a further one gets `OverloadedError`.
        max_queued_call_bytes: bytes of calls of one peer that wait: for a slot, if it knows no
            window, or until it reads its answers; each counts as 500 more than it is long.
        max_queued_bytes: bytes that wait to be sent to one peer; over it calls of that peer wait,
            up to `max_queued_call_bytes`, and notifications to it raise `OverloadedError`.
        max_all_queued_call_bytes: the same of all peers together as `max_queued_call_bytes`. Over
            it, calls that would have to wait are refused, of any peer.
        max_all_queued_bytes: the same as `max_queued_bytes` of all peers together. Over it peers
            for which anything is queued count as those that are over `max_queued_bytes`.
        max_depth: levels of nested arrays and maps.
        max_values: values of one JSON text; arrays and objects count twice, and what is in them as
            well. They are counted before any is made; a text with more is a parse error.
        stream_window: items of a stream that are under way before the reader asks for more.
    """

    heartbeat: float = HEARTBEAT
    max_message: int = MAX_MESSAGE
    max_frame: int = MAX_FRAME
    window: int = WINDOW
    max_in_flight: int = MAX_IN_FLIGHT
    max_waiting: int = MAX_WAITING
    max_all_waiting: int = MAX_ALL_WAITING
    max_peers: int = MAX_PEERS
    max_queued_call_bytes: int = MAX_QUEUED_CALL_BYTES
    max_queued_bytes: int = MAX_QUEUED_BYTES
    max_all_queued_call_bytes: int = MAX_ALL_QUEUED_CALL_BYTES
    max_all_queued_bytes: int = MAX_ALL_QUEUED_BYTES
    max_depth: int = MAX_DEPTH
    max_values: int = MAX_VALUES
    stream_window: int = STREAM_WINDOW

    @property
    def largest_frame(self) -> int:
        """Bytes of the largest frame that may arrive, of any kind and dialect."""
        return max(self.max_frame, FOREIGN_SIZE * self.max_message)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{field.name} must be a number above 0, not {value!r}")
            if field.type is int and not isinstance(value, int):
                raise ValueError(f"{field.name} must be a whole number, not {value!r}")
