"""Tell who answers at a port, by the first bytes that it sends."""

from typing import NamedTuple

__all__ = ["JSON_REQUEST", "REQUEST", "TLS", "Speaker", "identify", "quoted"]

#: What most programs answer that wait to be asked: HTTP servers, and others with an error.
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

#: What the TCP listener of a bridge answers, which takes no HTTP.
JSON_REQUEST = b'{"jsonrpc": "2.0", "method": "rpc.discover", "id": 1}\n'

#: How a record of TLS's handshake begins.
TLS = b"\x16\x03"


class Speaker(NamedTuple):
    """Who answers.

    Args:
        word: a word for programs.
        text: who it is.
        advice: what to do where a node or server was expected.
    """

    word: str
    text: str
    advice: str


_PORT = "is the port right?"
_KNOWN: tuple[tuple[tuple[bytes, ...], Speaker], ...] = (
    ((b"\xff",), Speaker("zeromq", "a ZeroMQ socket", "write tcp://host:port")),
    ((b"SSH-",), Speaker("ssh", "an SSH server", _PORT)),
    (
        (b"INFO {",),
        Speaker("nats", "a NATS server", "write nats://host:port, with /service for calls"),
    ),
    (
        (b"HTTP/",),
        Speaker(
            "http",
            "an HTTP server",
            "for a bridge write http://host:port; for a node or server give the port of its "
            "tcp:// address",
        ),
    ),
    (
        (b"\x15\x03", b"\x16\x03"),
        Speaker("tls", "a TLS server", "for a bridge with a certificate write https://host:port"),
    ),
    (
        (b"{", b"["),
        Speaker(
            "json",
            "a server of JSON texts, a line each",
            "it is the TCP listener of a bridge, for peers that are not Python: give the tcp:// "
            "address of the node or server itself",
        ),
    ),
    ((b"220", b"+OK", b"* OK"), Speaker("mail", "an FTP or mail server", _PORT)),
    ((b"-ERR", b"-NOAUTH", b"-DENIED"), Speaker("redis", "a Redis server", _PORT)),
    ((b"AMQP",), Speaker("amqp", "an AMQP broker", _PORT)),
)


def identify(first: bytes) -> Speaker:
    """Who sends these bytes first, or answers so to `REQUEST`."""
    for beginnings, speaker in _KNOWN:
        if first.startswith(beginnings):
            return speaker
    return Speaker("other", f"a program that says {quoted(first)}", _PORT)


def quoted(data: bytes) -> str:
    """The begin of what was said, for a person."""
    return repr(data[:40].split(b"\n")[0].decode("ascii", "replace").strip())
