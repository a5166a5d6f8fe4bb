"""One link to one NATS server: the only module that imports nats-py.

nats-py connects, proves who this side is, speaks TLS, parses and pings. A `Link` is a client of it
that connects once: where nats-py would reconnect, buffer or drop, `connection.Connection` decides.
What it overrides of nats-py is held by ``tests/nats/test_link.py``.
"""

import asyncio
import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, Protocol

from ..errors import AuthenticationError, ConnectionLostError
from ..runtime.extra import missing_package
from ..runtime.log import Log
from .address import Server
from .options import Nats

try:
    from nats import errors as nats_errors
    from nats.aio.client import Client as NatsClient
    from nats.aio.transport import TcpTransport
    from nats.protocol.parser import AWAITING_CONTROL_LINE
    from nats.protocol.parser import Parser as NatsParser
except ModuleNotFoundError as problem:
    if problem.name is None or problem.name.partition(".")[0] != "nats":
        raise
    raise missing_package("NATS needs nats-py", "nats", "nats") from None

__all__ = [
    "ExposedError",
    "Link",
    "LinkOptions",
    "LinkOwner",
    "Refusal",
    "UnsafeError",
    "check_signing",
    "error_of",
    "refusal_of",
    "speaks_no_tls",
    "text_of",
]

logger = Log("berrymq_rpc.nats")

#: Seconds to make a link, from the first packet to the server's answer to the password.
LINK_TIMEOUT = 5.0

#: Bytes that are read at once: as many as asyncio reads from a socket.
READ_BYTES = 256 << 10

#: Seconds that the tasks of a link that is given up have to end.
CLEANUP = 1.0

#: The line before a message without and with headers: subject, number of the subscription, subject
#: for answers if there is one, and sizes.
_PLAIN = re.compile(rb"MSG (\S+) ([0-9]{1,9}) (?:(\S+) )?([0-9]{1,9})\r\n").match
_WITH_HEADERS = re.compile(
    rb"HMSG (\S+) ([0-9]{1,9}) (?:(\S+) )?([0-9]{1,9}) ([0-9]{1,9})\r\n"
).match

#: Characters of what the server says that are kept in a text.
MAX_TEXT = 300

#: Bytes of a message that a server must take at least: those without which none of ours works.
MIN_PAYLOAD = 4096


class UnsafeError(AuthenticationError):
    """This side refuses the server: what it would send could be read by others."""


class ExposedError(UnsafeError):
    """The server lets anyone in, and others could call this side."""


class Refusal(NamedTuple):
    """A subject that this side may not use, or the whole connection.

    Args:
        error: what the server said.
        operation: ``"publish"`` or ``"subscribe"``; ``"connect"`` for the connection.
        subject: which; empty for the connection.
    """

    error: AuthenticationError
    operation: str
    subject: str


class LinkOwner(Protocol):
    """What a link reports to. None of the methods may raise."""

    def link_broken(self, link: "Link", reason: str) -> None:
        """The link is lost. It may be said more than once."""

    def link_refused(self, link: "Link", text: str) -> None:
        """The server does not allow something, or closes the connection for a reason."""

    def link_informed(self, link: "Link", info: dict[str, Any]) -> None:
        """The server says anew what it and its cluster are."""

    def received(
        self, number: int, subject: bytes, reply: bytes, payload: bytes, headers: bytes
    ) -> None:
        """A message of a subscription."""

    def parsed(self) -> None:
        """All that was read is handed over."""


class LinkOptions(NamedTuple):
    """How a link is made; `connection.Connection` explains it."""

    settings: Nats
    name: str
    heartbeat: float
    echo: bool
    insecure: bool
    serves: bool


class Transport(TcpTransport):  # type: ignore[misc]
    """Reads more at once than nats-py asks for: what was read together is answered together."""

    async def read(self, buffer_size: int) -> bytes:
        data: bytes = await super().read(READ_BYTES)
        return data


class Parser(NatsParser):  # type: ignore[misc]
    """Takes messages out of what was read by itself, and leaves all else to nats-py.

    nats-py moves the rest of what was read in memory for each message. So it gets each other line
    alone, as messages may follow.
    """

    _expected: int

    async def parse(self, data: bytes = b"") -> None:
        if self.state == AWAITING_CONTROL_LINE:
            buf = self.buf
            if buf:
                buf += data
                if len(buf) < self._expected:
                    return
                data = bytes(buf)
                buf.clear()
            done = 0
            while True:
                done, self._expected = self._take_messages(data, done)
                end = len(data) if self._expected else data.find(b"\r\n", done) + 2
                if end < 2:
                    # Not a whole line; nats-py bounds it.
                    end = len(data)
                if end > done:
                    buf += memoryview(data)[done:end]
                    if not self._expected:
                        await super().parse()
                if end == len(data):
                    break
                done = end
                if buf or self.state != AWAITING_CONTROL_LINE:
                    # A message in another form than nats-server's, for example.
                    await super().parse(data[done:])
                    break
        else:
            await super().parse(data)
        self.nc.owner.parsed()

    def reset(self) -> None:
        super().reset()
        #: Bytes that there must be for the message that the buffer begins with; 0 for something
        #: else.
        self._expected = 0

    def _take_messages(self, data: bytes, start: int) -> tuple[int, int]:
        """Hand on the whole messages that bytes have from a place on.

        Returns:
            Where they end, and how many bytes the next message takes as far as is known; 0 if no
            message follows.
        """
        received = self.nc.owner.received
        size = len(data)
        while True:
            # Whatever else it is, a line without an end included, is left to nats-py.
            line = _PLAIN(data, start)
            if line is not None:
                subject, number, reply, length = line.groups(b"")
                body, headers = line.end(), b""
                stop = body + int(length)
                if stop + 2 > size:
                    return start, stop + 2 - start
            else:
                line = _WITH_HEADERS(data, start)
                if line is None:
                    return start, 0
                subject, number, reply, headers_length, length = line.groups(b"")
                body = line.end()
                stop = body + int(length)
                if stop + 2 > size:
                    return start, stop + 2 - start
                middle = min(body + int(headers_length), stop)
                headers, body = data[body:middle], middle
            received(int(number), subject, reply, data[body:stop], headers)
            start = stop + 2


class Link(NatsClient):  # type: ignore[misc]
    """A client of nats-py that connects once. Its names with an underscore override nats-py's."""

    _transport: Any

    def __init__(self, owner: LinkOwner, server: Server, options: LinkOptions) -> None:
        super().__init__()
        self.owner = owner
        self.server = server
        self._link_options = options
        self._server_info: dict[str, Any] = {}
        self._ps = Parser(self)
        self._began = monotonic()
        #: Whether it has been sent who this side is.
        self._said_who = False
        self._waiting_pongs: list[asyncio.Future[bool]] = []

    @property
    def lived(self) -> float:
        """Seconds since it was made."""
        return monotonic() - self._began

    @property
    def info(self) -> dict[str, Any]:
        """What the server said about itself."""
        info: dict[str, Any] = self._server_info
        return info

    @property
    def has_shown_certificate(self) -> bool:
        """Whether the server wants a certificate of this side, and TLS began with one or none.

        A server that closes the link then does not like it. It says so first, which may get lost.
        """
        return self._said_who and bool(self.info.get("tls_verify"))

    @property
    def buffered(self) -> int:
        """Bytes that the socket has not taken yet."""
        writer = self._writer
        return 0 if writer is None else writer.transport.get_write_buffer_size()

    @property
    def _writer(self) -> asyncio.StreamWriter | None:
        return None if self._transport is None else self._transport._io_writer

    async def open(self, *, tls_first: bool, timeout: float) -> None:
        """Connect.

        Args:
            tls_first: TLS begins before the server says anything.
            timeout: seconds for each step.

        Raises:
            Exception: whatever nats-py raises.
        """
        options, settings = self._link_options, self._link_options.settings
        given = settings.address.servers
        # A cluster names its servers by IP addresses, which few certificates have.
        name = self.server.host if self.server in given else given[0].host
        tls = settings.tls
        if tls is None and settings.address.tls:
            tls = ssl.create_default_context()
        if settings.credentials is not None:
            _check_credentials(settings.credentials)
        if settings.nkey is not None:
            _check_nkey(settings.nkey)
        await self.connect(
            servers=f"nats://{self.server}",
            name=options.name,
            error_cb=_ignore,
            allow_reconnect=False,
            connect_timeout=timeout,
            ping_interval=max(options.heartbeat / 2, 0.05),
            # Two halves of a heartbeat.
            max_outstanding_pings=2,
            no_echo=not options.echo,
            tls=tls,
            tls_hostname=name,
            tls_handshake_first=tls_first,
            user=settings.user,
            password=settings.password,
            token=settings.token,
            nkeys_seed=settings.nkey,
            user_credentials=settings.credentials,
        )
        if not self.is_connected:
            raise ConnectionResetError("the server closed the connection")
        self._check_exposure()

    def _check_exposure(self) -> None:
        info, options = self.info, self._link_options
        # Who is let in without a proof, is let in as everybody is.
        knows_us = info.get("auth_required") and options.settings.has_proof
        if not (
            knows_us
            or info.get("tls_verify")
            or options.insecure
            or not options.serves
            or self.server.is_loopback
        ):
            raise ExposedError(
                f"anyone who reaches the NATS server at {self.server} could call this side or send "
                "it messages: it asks for no authentication. Configure users there, and say as "
                "which one, or pass insecure=True if the network is trusted",
                reason="credentials",
            )

    def write(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write at once; what the socket does not take is kept."""
        writer = self._writer
        if writer is not None and not writer.transport.is_closing():
            writer.transport.writelines(parts)

    async def ping(self) -> "asyncio.Future[bool]":
        """Ask for an answer; the result is ``False`` if the link ends before."""
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting_pongs = [p for p in self._waiting_pongs if not p.done()]
        self._waiting_pongs.append(pong)
        await self._send_ping(pong)
        return pong

    def abort(self) -> None:
        """End it: nothing is sent or read any more."""
        writer = self._writer
        if writer is not None:
            writer.transport.abort()
        bare = getattr(self._transport, "_bare_io_writer", None)
        if bare is not None and bare is not writer:
            bare.transport.abort()
        # nats-py would set these again where the answer was read already.
        self._pongs.clear()
        for pong in self._waiting_pongs:
            if not pong.done():
                pong.set_result(False)

    async def clean_up(self) -> None:
        """End the tasks of nats-py. It never raises."""
        if self._flush_queue is None:
            # It has not begun to connect.
            return
        # It is aborted; nats-py would wait for it, and where TLS had begun for nothing.
        self._transport = None
        try:
            async with asyncio.timeout(CLEANUP):
                await self.close()
        except Exception as error:
            logger.debug("the end of a link to NATS: %s", error)
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=CLEANUP)

    # -- what nats-py calls ------------------------------------------------------------------

    async def _select_next_server(self) -> None:
        # nats-py's own does not end while no server answers.
        server = self._server_pool[0]
        self._transport = Transport()
        await self._transport.connect(
            server.uri, buffer_size=READ_BYTES, connect_timeout=self.options["connect_timeout"]
        )
        self._current_server = server

    def _connect_command(self) -> bytes:
        # Called just before who this side is goes out.
        settings = self._link_options.settings
        writer = self._writer
        is_encrypted = writer is not None and writer.get_extra_info("ssl_object")
        if writer is not None and is_encrypted:
            # Who is refused hears the server's end as well.
            _end_with_peer(writer.transport.get_protocol())
        if settings.address.tls and not is_encrypted:
            raise AuthenticationError(
                f"{self.server} speaks no TLS, which was asked for: nothing was sent",
                reason="certificate",
            )
        if (
            settings.has_secret
            and not is_encrypted
            and not self.server.is_loopback
            and not self._link_options.insecure
        ):
            raise UnsafeError(
                f"a password or token for {self.server} would go over the network for others to "
                "read. Use nats+tls://, or pass insecure=True if the network is trusted",
                reason="credentials",
            )
        command: bytes = super()._connect_command()
        self._said_who = True
        return command

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.owner.received(sid, subject, reply, data, headers or b"")

    async def _process_info(self, info: Any, initial_connection: bool = False) -> None:
        if initial_connection:
            if self._link_options.settings.address.tls and info.get("tls_available"):
                # nats-py begins TLS only with a server that asks for it.
                info["tls_required"] = True
        elif isinstance(info, dict):
            self._server_info = {**self._server_info, **info}
            self.owner.link_informed(self, self._server_info)

    async def _process_err(self, err_msg: str) -> None:
        # nats-py has made it lower case; the parser still has it as it came.
        line = bytes(self._ps.buf).partition(b"\r\n")[0].decode("utf-8", "surrogateescape")
        text = line.partition("'")[2].rpartition("'")[0]
        self.owner.link_refused(self, text if text.lower() in err_msg else err_msg)

    async def _process_op_err(self, e: Exception) -> None:
        self.owner.link_broken(self, text_of(e))

    async def _read_loop(self) -> None:
        await super()._read_loop()
        self.owner.link_broken(self, "the server closed the connection")


async def _ignore(error: Exception) -> None:
    """What nats-py reports by a callback it raises as well, or it is found otherwise."""


def text_of(error: BaseException | None) -> str:
    return (str(error) or type(error).__name__)[:MAX_TEXT] if error is not None else "no answer"


def error_of(error: BaseException, server: Server) -> BaseException:
    """What a link that could not be made is told as."""
    text = text_of(error)
    match error:
        case AuthenticationError():
            return error
        case ssl.SSLError() if not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return AuthenticationError(
                f"TLS with the NATS server at {server} failed: {text}", reason="certificate"
            )
        case nats_errors.Error() if "authori" in text.lower() or "authent" in text.lower():
            return AuthenticationError(
                f"the NATS server at {server} refused this side: {text}", reason="credentials"
            )
        case nats_errors.Error() | TimeoutError() | ConnectionLostError():
            return ConnectionLostError(f"the NATS server at {server} does not answer: {text}")
        case OSError():
            return error
        case _:
            # A kind of error that nats-py is not known to raise must not end the attempts.
            return ConnectionLostError(f"no connection to the NATS server at {server}: {text}")


def _end_with_peer(protocol: Any) -> None:
    """Have the protocol of a TLS transport not ask for what TLS cannot do: to go on writing when
    the peer has ended. nats-py's asks, as it does not say that it is TLS, and asyncio warns."""
    if protocol is None:
        # The link has ended already; uvloop says so in this way.
        return
    received = protocol.eof_received

    def eof_received() -> None:
        received()

    protocol.eof_received = eof_received


def speaks_no_tls(error: BaseException | None) -> bool:
    """Whether what came in place of TLS was something else, such as the INFO of a NATS server."""
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLCertVerificationError):
        return False
    # An alert is TLS, and says what is wrong.
    return bool(error.reason) and "ALERT" not in error.reason


def refusal_of(text: str, server: str) -> Refusal | None:
    """Read what a server says it refuses; ``None`` for another error."""
    lower = text.lower()
    if lower.startswith("permissions violation"):
        operation = "publish" if "for publish to" in lower else "subscribe"
        subject = text.partition('"')[2].partition('"')[0]
        return Refusal(
            AuthenticationError(
                f"the NATS server at {server} does not let this side {operation} to {subject!r}",
                reason="permission",
            ),
            operation,
            subject,
        )
    if "authentication" in lower or "authorization" in lower or "account" in lower:
        error = AuthenticationError(
            f"the NATS server at {server} refused this side: {text[:MAX_TEXT]}",
            reason="credentials",
        )
        return Refusal(error, "connect", "")
    return None


def check_signing(settings: Nats) -> None:
    """See that what signs for this side is installed, if something must.

    Raises:
        ModuleNotFoundError: nkeys is not installed; it comes with the extra ``nats``.
    """
    if settings.nkey is not None or settings.credentials is not None:
        try:
            import nkeys  # noqa: F401
        except ModuleNotFoundError:
            raise missing_package("nkey= and credentials= need nkeys", "nats", "nkeys") from None


def _check_credentials(path: Any) -> None:
    """nats-py does not end reading a file that is none.

    Raises:
        AuthenticationError: it is no file of credentials.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise AuthenticationError(
            f"the credentials cannot be read: {error}", reason="credentials"
        ) from None
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise AuthenticationError(f"{path} has no credentials of NATS", reason="credentials")


def _check_nkey(path: Any) -> None:
    """What nkeys raises is of several kinds.

    Raises:
        AuthenticationError: it is no file with the seed of a key.
    """
    import nkeys

    try:
        nkeys.from_seed(bytearray(Path(path).read_bytes().strip())).wipe()
    except Exception as error:
        # Without the error of nkeys, which may show the seed.
        reason = f": {error}" if isinstance(error, OSError) else ""
        raise AuthenticationError(
            f"{path} has no seed of an nkey{reason}", reason="credentials"
        ) from None
