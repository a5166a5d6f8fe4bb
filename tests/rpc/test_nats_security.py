"""Who may connect at NATS and to which subjects; TLS; and that nothing secret is shown."""

import asyncio
import base64
import itertools
import json
import logging
import math
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

import nkeys

from berrymq_rpc import Bus, Node, rpc
from berrymq_rpc.nats import connection as connection_module
from berrymq_rpc.nats.connection import Connection
from berrymq_rpc.rpc.transport.nats.listener import NatsListener
from berrymq_rpc.testing.nats_server import NatsServer

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "security.rst"

StartNats = Callable[..., NatsServer]

_numbers = itertools.count()


class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a: int, b: int) -> int:
        return a + b


@asynccontextmanager
async def opened(server: rpc.Nats, client: rpc.Nats, **options: Any) -> AsyncIterator[Any]:
    limits = rpc.Limits(heartbeat=1.0)
    async with (
        await rpc.start_server(Handler(), bind=server, limits=limits, **options),
        await rpc.open_client(connect=client, limits=limits, timeout=10, **options) as names,
    ):
        yield names.rpc


async def refusal(place: rpc.Nats, **options: Any) -> rpc.AuthenticationError:
    """How a server and a client are refused; in the same way."""
    with pytest.raises(rpc.AuthenticationError) as at_server:
        await rpc.start_server(Handler(), bind=place, **options)
    async with await rpc.open_client(connect=place, **options) as client:
        with pytest.raises(rpc.AuthenticationError) as at_client:
            async with asyncio.timeout(10):
                await client.rpc.add(1, 2)
    assert at_client.value.reason == at_server.value.reason
    assert at_client.value.sent is False
    return at_client.value


# -- who may connect ----------------------------------------------------------------------------


def user_seed(folder: Path, kind: int) -> tuple[Path, Any]:
    """A file with the seed of a key, and the key."""
    seed = nkeys.encode_seed(os.urandom(32), kind)
    path = folder / f"seed{next(_numbers)}"
    path.write_bytes(bytes(seed) + b"\n")
    return path, nkeys.from_seed(bytearray(seed))


def signed(claims: dict[str, Any], signer: Any) -> str:
    """A JWT as NATS has them."""

    def part(value: Any) -> str:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"iat": 1_700_000_000, "iss": signer.public_key.decode(), **claims}
    text = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(claims)}"
    return f"{text}.{part(signer.sign(text.encode()))}"


def operator(folder: Path) -> tuple[str, Path, Callable[[int], Path]]:
    """A configuration with an operator, a user's credentials, and how to make ones that expire."""
    _, boss = user_seed(folder, nkeys.PREFIX_BYTE_OPERATOR)
    _, account = user_seed(folder, nkeys.PREFIX_BYTE_ACCOUNT)
    everything = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1}
    boss_jwt = signed(
        {"sub": boss.public_key.decode(), "name": "O", "nats": {"type": "operator", "version": 2}},
        boss,
    )
    account_jwt = signed(
        {
            "sub": account.public_key.decode(),
            "name": "A",
            "nats": {"type": "account", "version": 2, "limits": everything},
        },
        boss,
    )

    def credentials(**claims: Any) -> Path:
        seed, user = user_seed(folder, nkeys.PREFIX_BYTE_USER)
        nats = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
        claims |= {"sub": user.public_key.decode(), "name": "U", "nats": nats}
        jwt = signed(claims, account)
        path = folder / f"user{next(_numbers)}.creds"
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed.read_text().strip()}\n"
            "------END USER NKEY SEED------\n"
        )
        return path

    config = (
        f"operator: {boss_jwt}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {account.public_key.decode()}: {account_jwt} }}\n"
    )
    return config, credentials(), lambda when: credentials(exp=when)


@pytest.mark.parametrize("way", ["password", "address", "token", "nkey", "credentials"])
async def test_who_may_connect(
    start_nats: StartNats, tmp_path: Path, way: str, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    seed, key = user_seed(tmp_path, nkeys.PREFIX_BYTE_USER)
    other_seed, _ = user_seed(tmp_path, nkeys.PREFIX_BYTE_USER)
    operated, good, expired = operator(tmp_path)
    configs = {
        "password": "authorization { user: alice, password: right-word }",
        "address": "authorization { user: alice, password: right-word }",
        "token": "authorization { token: right-word }",
        "nkey": f"authorization {{ users: [{{ nkey: {key.public_key.decode()} }}] }}",
        "credentials": operated,
    }
    server = start_nats(configs[way])
    url = f"{server.url}/calc"
    with_user = url.replace("//", "//alice:{}@")
    right, wrong = {
        "password": (
            rpc.Nats(url, user="alice", password="right-word"),
            rpc.Nats(url, user="alice", password="wrong-word"),
        ),
        "address": (
            rpc.Nats(with_user.format("right-word")),
            rpc.Nats(with_user.format("wrong-word")),
        ),
        "token": (rpc.Nats(url, token="right-word"), rpc.Nats(url, token="wrong-word")),
        "nkey": (rpc.Nats(url, nkey=seed), rpc.Nats(url, nkey=other_seed)),
        "credentials": (
            rpc.Nats(url, credentials=good),
            rpc.Nats(url, credentials=expired(1_700_000_001)),
        ),
    }[way]
    async with opened(right, right) as names:
        assert await names.add(1, 2) == 3
    for place in (wrong, rpc.Nats(url)):
        error = await refusal(place)
        assert error.reason == "credentials"
        assert error.endpoint == url
    shown = f"{caplog.text}{right}{right!r}"
    assert "right-word" not in shown
    assert "wrong-word" not in shown
    assert seed.read_text().strip() not in shown


async def test_no_text_has_the_password_of_an_address(
    start_nats: StartNats, until: Any, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    nats = start_nats("authorization { user: alice, password: right-word }")
    address = f"nats://alice:right-word@127.0.0.1:{nats.port}/calc"
    async with (
        await rpc.start_server(Handler(), bind=address) as server,
        await rpc.open_client(connect=address, connect_timeout=0.3) as client,
    ):
        await until(lambda: client.statistics()["peers"] == 1)
        shown = f"{server!r} {client!r} {server.endpoints} {client.endpoints}"
        nats.kill()
        await until(lambda: client.statistics()["peers"] == 0)
        with pytest.raises(rpc.ConnectionLostError) as caught:
            await client.rpc.add(1, 2)
        shown += f"{caught.value} {caught.value!r} {caught.value.endpoint}"
    with pytest.raises(rpc.ConnectionLostError) as refused:
        await rpc.open_client(bind=address.replace(str(nats.port), "1"), connect_timeout=0.3)
    shown += f"{refused.value!r} {caplog.text}"
    assert f"nats://127.0.0.1:{nats.port}/calc" in shown
    assert "right-word" not in shown


@pytest.mark.parametrize("content", ["", "-----BEGIN NATS USER JWT-----\n", None])
async def test_no_credentials(nats_server: NatsServer, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "user.creds"
    if content is not None:
        path.write_text(content)
    place = rpc.Nats(f"{nats_server.url}/calc", credentials=path)
    assert (await refusal(place)).reason == "credentials"


@pytest.mark.parametrize("content", [b"", b"SUABC\n", b"\xff" * 100, None])
async def test_no_nkey(nats_server: NatsServer, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "seed"
    if content is not None:
        path.write_bytes(content)
    place = rpc.Nats(f"{nats_server.url}/calc", nkey=path)
    assert (await refusal(place)).reason == "credentials"


async def test_credentials_that_expire_while_they_are_used(
    start_nats: StartNats, tmp_path: Path
) -> None:
    config, good, expired = operator(tmp_path)
    server = start_nats(config)
    place = rpc.Nats(f"{server.url}/calc", credentials=good)
    # A JWT has whole seconds.
    soon = rpc.Nats(f"{server.url}/calc", credentials=expired(math.ceil(time.time() + 0.5)))
    async with (
        await rpc.start_server(Handler(), bind=place),
        await rpc.open_client(connect=soon, timeout=10) as client,
    ):
        assert await client.rpc.add(1, 2) == 3
        with pytest.raises(rpc.AuthenticationError, match="refused this side") as caught:
            while True:
                try:
                    await client.rpc.add(1, 2)
                except rpc.AuthenticationError:
                    raise
                except rpc.ConnectionLostError:
                    continue
        assert caught.value.reason == "credentials"


async def test_a_password_that_is_changed_while_it_runs(
    start_nats: StartNats, until: Any, caplog: Any
) -> None:
    """Who is thrown out learns why, and comes back when it may."""
    config = "authorization {{ user: alice, password: {} }}"
    server = start_nats(config.format("one"))
    place = rpc.Nats(f"{server.url}/calc", user="alice", password="one")
    async with (
        await rpc.open_client(connect=place, timeout=10) as client,
        await rpc.start_server(Handler(), bind=place),
    ):
        assert await client.rpc.add(1, 2) == 3
        server.reload(config.format("other"))
        with pytest.raises(rpc.AuthenticationError):
            while True:
                try:
                    await client.rpc.add(1, 2)
                except rpc.AuthenticationError:
                    raise
                except rpc.ConnectionLostError:
                    continue
        await until(lambda: "refused this side" in caplog.text)


async def test_a_peer_at_nats_has_no_name(nats_server: NatsServer) -> None:
    """`allow=` is for named users; a function that decides has the method's name."""

    class Guarded(rpc.AttrHandler):
        @rpc.method
        def user(self) -> Any:
            return rpc.context().peer.user

        @rpc.method(allow={"alice"})
        def private(self) -> None: ...

        @rpc.method
        def other(self) -> None: ...

    asked: list[tuple[Any, str]] = []

    def authorize(context: rpc.Context, method: str) -> bool:
        asked.append((context.peer.user, method))
        return method != "other"

    place = f"{nats_server.url}/guarded-{os.getpid()}"
    async with (
        await rpc.start_server(Guarded(), bind=place, authorize=authorize),
        await rpc.open_client(connect=place, timeout=10) as client,
    ):
        assert await client.rpc.user() is None
        for method in ("private", "other"):
            with pytest.raises(rpc.PermissionDeniedError):
                await getattr(client.rpc, method)()
    assert {user for user, _ in asked} == {None}
    assert {"user", "other"} <= {method for _, method in asked}


# -- permissions --------------------------------------------------------------------------------


def table() -> list[tuple[str, str, str, str]]:
    """The rows of the page: who, what it may, the subject, and what happens without it."""
    text = PAGE.read_text(encoding="utf-8").partition("list-table:: Permissions at NATS")[2]
    text = re.split(r"\n\n(?=\S)", text)[0]
    rows = re.findall(r"   \* - (\w+)\n     - (\w+)\n     - ``([^`]+)``\n     - (.+)", text)
    assert len(rows) == text.count("   * - ") - 1 == 10
    return rows


ROWS = table()


def configuration(rows: list[tuple[str, str, str, str]]) -> str:
    users = []
    for who in ("server", "client"):
        allowed = {
            may: ", ".join(f'"{subject}"' for w, m, subject, _ in rows if (w, m) == (who, may))
            for may in ("publish", "subscribe")
        }
        permissions = ", ".join(f"{may}: {{ allow: [{allowed[may]}] }}" for may in allowed)
        users.append(f"{{ user: {who}, password: word, permissions: {{ {permissions} }} }}")
    return f"authorization {{ users: [{', '.join(users)}] }}"


def places(server: NatsServer, **options: Any) -> list[rpc.Nats]:
    return [
        rpc.Nats(f"{server.url}/calc", user=who, password="word", **options)
        for who in ("server", "client")
    ]


async def test_the_permissions_of_the_page(start_nats: StartNats, caplog: Any) -> None:
    """They are enough; being listed by `nats micro ls` is not among them."""
    caplog.set_level(logging.INFO)
    server = start_nats(configuration(ROWS))
    async with opened(*places(server)) as names:
        assert await names.add(1, 2) == 3
        # Beats come and go.
        await asyncio.sleep(1.0)
        assert await names.add(1, 2) == 3
    refused = [r for r in caplog.records if "does not let" in r.getMessage()]
    shown = [record.getMessage().rpartition(" ")[2] for record in refused]
    assert sorted(shown) == ["'$SRV.PING'", "'calc.>'"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}")
async def test_a_missing_permission(
    start_nats: StartNats, until: Any, row: tuple[str, str, str, str], caplog: Any
) -> None:
    _, may, subject, without = row
    server = start_nats(configuration([other for other in ROWS if other != row]))
    at_server, at_client = places(server)
    tokens = {"*": "[^.']+", ">": "[^']+"}
    named = "[.]".join(tokens.get(token) or re.escape(token) for token in subject.split("."))
    said = re.compile(f"let this side {may} to '{named}'")
    if without == "``start_server`` raises":
        with pytest.raises(rpc.AuthenticationError, match=said) as caught:
            await rpc.start_server(Handler(), bind=at_server)
        assert caught.value.reason == "permission"
        return
    async with (
        await rpc.start_server(Handler(), bind=at_server, limits=rpc.Limits(heartbeat=1.0)),
        await rpc.open_client(connect=at_client, limits=rpc.Limits(heartbeat=1.0)) as client,
    ):
        call = asyncio.ensure_future(client.rpc.add(1, 2))
        if without == "calls raise":
            with pytest.raises(rpc.AuthenticationError, match=said) as caught:
                await call
            assert caught.value.reason == "permission"
            return
        assert without.startswith("logged")
        try:
            await until(lambda: said.search(caplog.text))
            if "no client" not in without:
                assert await call == 3
        finally:
            call.cancel()


async def test_who_may_only_look_takes_no_session(start_nats: StartNats, until: Any) -> None:
    """It learns which servers there are, and neither reads nor ends what goes on with them."""
    word = 'password: word, permissions: { publish: { allow: ["berrymq-rpc.calc.find"] }'
    looks = f'{{ user: looks, {word}, subscribe: {{ allow: ["_INBOX.looks.>"] }} }} }}'
    server = start_nats(configuration(ROWS).replace("users: [", f"users: [{looks}, "))
    at_server, at_client = places(server)
    refused: list[str] = []
    mallory = Connection(
        rpc.Nats(server.url, user="looks", password="word", inbox_prefix="_INBOX.looks"),
        refused=lambda refusal: refused.append(refusal.subject),
    )
    got: list[tuple[str, bytes]] = []
    async with (
        await rpc.start_server(Handler(), bind=at_server) as serving,
        await rpc.open_client(connect=at_client, timeout=10) as client,
    ):
        assert await client.rpc.add(1, 2) == 3
        (port,) = [c.port for c in serving._runtime.ports if isinstance(c.port, NatsListener)]
        ((token, session),) = port.sessions.items()
        try:
            await mallory.connect(10)
            mallory.subscribe(
                f"{mallory.inbox}.*", lambda s, r, payload, h: got.append((s, payload))
            )
            mallory.publish("berrymq-rpc.calc.find", b"", f"{mallory.inbox}.f")
            await until(lambda: got)
            assert got[0][1][22:].decode() == port.id
            # Even what it cannot know is of no use: answers to searches end no session.
            to = f"berrymq-rpc.calc.to.{port.id}"
            subjects = ["berrymq-rpc.calc.up"]
            subjects += [f"{to}.{last}" for last in (token, f"!{token}", "open", "beat")]
            inbox = session.subject.rpartition(".")[0]
            for reply in (*subjects, f"{inbox}.1", f"{inbox}.!1"):
                mallory.publish("berrymq-rpc.calc.find", b"", reply)
            taken = [f"{to}.open", f"{to}.{token}", f"{to}.beat", session.subject]
            for subject in taken:
                mallory.publish(subject, b"", f"{mallory.inbox}.x")
            mallory.subscribe(f"{to}.*", lambda *_: None)
            await until(lambda: len(refused) == len(taken) + 1)
            assert refused == [*taken, f"{to}.*"]
            assert await client.rpc.add(1, 2) == 3
            assert list(port.sessions.values()) == [session]
            assert len(got) == 1
        finally:
            await mallory.close()


async def test_an_inbox_of_its_own(start_nats: StartNats) -> None:
    rows = [
        (w, m, "_INBOX.alice.>" if w == "client" and s == "_INBOX.>" else s, x)
        for w, m, s, x in ROWS
    ]
    server = start_nats(configuration(rows))
    at_server, at_client = places(server)
    async with opened(
        at_server,
        rpc.Nats(at_client.servers, user="client", password="word", inbox_prefix="_INBOX.alice"),
    ) as names:
        assert await names.add(1, 2) == 3
    async with await rpc.open_client(connect=at_client) as client:
        with pytest.raises(rpc.AuthenticationError, match="subscribe to '_INBOX"):
            await client.rpc.add(1, 2)


# -- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate that signs itself, for server and client."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return folder


def tls_config(folder: Path, more: str = "") -> str:
    return f'tls {{ cert_file: "{folder}/certificate.pem", key_file: "{folder}/key.pem"\n {more} }}'


@pytest.mark.parametrize("more", ["", "handshake_first: true", "verify: true"])
@pytest.mark.parametrize("scheme", ["nats", "nats+tls"])
async def test_tls(
    start_nats: StartNats, certificates: Path, more: str, scheme: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(connection_module, "FIRST_PATIENCE", 0.2)
    if "verify" in more:
        more += f', ca_file: "{certificates}/certificate.pem"'
    server = start_nats(tls_config(certificates, more))
    url = f"{scheme}://127.0.0.1:{server.port}/calc"
    context = ssl.create_default_context(cafile=str(certificates / "certificate.pem"))
    if "verify" in more:
        assert (await refusal(rpc.Nats(url, tls=context))).reason == "certificate"
        context.load_cert_chain(certificates / "certificate.pem", certificates / "key.pem")
    place = rpc.Nats(url, tls=context)
    async with opened(place, place) as names:
        assert await names.add(1, 2) == 3
    # A certificate that nobody here trusts.
    untrusted = rpc.Nats(url, tls=ssl.create_default_context())
    assert (await refusal(untrusted)).reason == "certificate"


@pytest.mark.parametrize("more", ["", "handshake_first: true"])
async def test_the_end_of_a_server_with_tls_is_no_warning_of_asyncio(
    start_nats: StartNats, certificates: Path, more: str, caplog: Any, until: Any
) -> None:
    server = start_nats(tls_config(certificates, more))
    context = ssl.create_default_context(cafile=str(certificates / "certificate.pem"))
    place = rpc.Nats(f"nats+tls://127.0.0.1:{server.port}", tls=context)
    async with Node(bus=Bus(), cluster=place):
        server.kill()
        await until(lambda: "was lost" in caplog.text)
    assert {record.name for record in caplog.records} == {"berrymq_rpc.nats"}


async def test_tls_that_only_the_server_asks_for(start_nats: StartNats, certificates: Path) -> None:
    server = start_nats(tls_config(certificates))
    assert (await refusal(rpc.Nats(f"{server.url}/calc"))).reason == "certificate"


async def test_tls_that_only_this_side_asks_for(start_nats: StartNats, certificates: Path) -> None:
    """A server that takes both takes a password that goes over TLS alone."""
    server = start_nats(
        f"{tls_config(certificates)}\nallow_non_tls: true\n"
        "authorization { user: alice, password: word }",
        address="0.0.0.0",
    )
    context = ssl.create_default_context(cafile=str(certificates / "certificate.pem"))
    context.check_hostname = False
    place = rpc.Nats(
        f"nats+tls://{own_address()}:{server.port}/calc", user="alice", password="word", tls=context
    )
    async with opened(place, place) as names:
        assert await names.add(1, 2) == 3


class Between:
    """Somebody in the middle of a connection, who answers in place of the NATS server."""

    def __init__(
        self,
        greeting: bytes,
        context: ssl.SSLContext | None = None,
        *,
        delay: float = 0.0,
        closes: bool = False,
    ) -> None:
        self._greeting = greeting
        self._context = context
        self._delay = delay
        self._closes = closes
        self.read = b""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(self._delay)
            writer.write(self._greeting)
            await writer.drain()
            if self._context is not None:
                await writer.start_tls(self._context)
            while not self._closes and (line := await reader.readline()):
                self.read += line
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
        except OSError:
            # The other side gave up.
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await server.wait_closed()


@pytest.mark.parametrize(
    "claims", [{}, {"tls_required": False}, {"tls_available": True}, {"tls_required": True}]
)
async def test_whoever_is_between_gets_no_password(claims: dict[str, bool]) -> None:
    """Neither by saying that the server speaks no TLS, nor by beginning it with nothing."""
    info = {"server_id": "x", "version": "2.12.0", "max_payload": 1 << 20, "auth_required": True}
    between = Between(b"INFO " + json.dumps(info | claims).encode() + b"\r\n")
    async with between.listening() as port:
        place = rpc.Nats(f"nats+tls://127.0.0.1:{port}/calc", user="alice", password="secret-word")
        async with await rpc.open_client(connect=place, connect_timeout=0.5) as client:
            with pytest.raises((rpc.AuthenticationError, rpc.ConnectionLostError)):
                await client.rpc.add(1, 2)
        # A ClientHello may be there.
        assert not any(word in between.read for word in (b"CONNECT", b"alice", b"secret-word"))


async def test_a_server_far_away_is_not_taken_for_one_that_begins_with_tls(
    certificates: Path, monkeypatch: Any
) -> None:
    """It says who it is later than one that is near; that is no wrong certificate."""
    monkeypatch.setattr(connection_module, "FIRST_PATIENCE", 0.05)
    info = {"server_id": "x", "version": "2.12.0", "max_payload": 1 << 20, "tls_required": True}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "certificate.pem", certificates / "key.pem")
    trusting = ssl.create_default_context(cafile=str(certificates / "certificate.pem"))
    far = Between(b"INFO " + json.dumps(info).encode() + b"\r\n", context, delay=0.15)
    async with far.listening() as port:
        connection = Connection(rpc.Nats(f"nats+tls://127.0.0.1:{port}", tls=trusting))
        try:
            await connection.connect(10)
        finally:
            await connection.close()


async def test_a_server_that_closes_without_a_word_wants_another_certificate(
    certificates: Path,
) -> None:
    """What it says may be lost, as this side has sent something that it does not read."""
    info = {"server_id": "x", "version": "2.12.0", "tls_required": True, "tls_verify": True}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "certificate.pem", certificates / "key.pem")
    trusting = ssl.create_default_context(cafile=str(certificates / "certificate.pem"))
    closing = Between(b"INFO " + json.dumps(info).encode() + b"\r\n", context, closes=True)
    async with closing.listening() as port:
        place = rpc.Nats(f"nats+tls://127.0.0.1:{port}/calc", tls=trusting)
        error = await refusal(place)
    assert error.reason == "certificate"
    assert "wants a certificate of this side" in str(error)


async def test_what_came_before_tls_is_no_message(certificates: Path, until: Any) -> None:
    """Somebody between has put it there: it is not taken for the server's."""
    info = {"server_id": "x", "version": "2.12.0", "max_payload": 1 << 20, "tls_required": True}
    greeting = b"INFO " + json.dumps(info).encode() + b"\r\n"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "certificate.pem", certificates / "key.pem")
    trusting = ssl.create_default_context(cafile=str(certificates / "certificate.pem"))
    got: list[bytes] = []
    async with Between(greeting + b"MSG a 1 4\r\nevil\r\n", context).listening() as port:
        connection = Connection(rpc.Nats(f"nats+tls://127.0.0.1:{port}", tls=trusting))
        connection.subscribe("a", lambda s, r, payload, h: got.append(payload))
        try:
            await connection.connect(10)
            assert await connection.flush(10)
        finally:
            await connection.close()
    assert got == []


async def test_never_plain_after_tls_was_asked_for(start_nats: StartNats) -> None:
    server = start_nats('authorization { user: alice, password: "word" }')
    url = f"nats+tls://127.0.0.1:{server.port}/calc"
    error = await refusal(rpc.Nats(url, user="alice", password="word"))
    assert error.reason == "certificate"
    assert "speaks no TLS" in str(error)


def own_address() -> str:
    """An address by which other hosts could reach this one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no network")
        address: str = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this host has no network")
    return address


async def test_beyond_this_host(start_nats: StartNats, until: Any, caplog: Any) -> None:
    host = own_address()
    server = start_nats(address="0.0.0.0")
    place = rpc.Nats(f"nats://{host}:{server.port}/calc")
    with pytest.raises(ValueError, match="asks for no authentication"):
        await rpc.start_server(Handler(), bind=place)
    async with opened(place, place, insecure=True) as names:
        assert await names.add(1, 2) == 3
    # Whoever serves by connecting is found by anyone as well, and so is a client with a handler.
    async with await rpc.open_client(connect=place, handler=Handler()) as client:
        with pytest.raises(rpc.AuthenticationError, match="asks for no authentication"):
            await client.rpc.add(1, 2)
    async with await rpc.start_server(Handler(), connect=place):
        await until(lambda: "asks for no authentication" in caplog.text)
    # A client that serves nothing may.
    async with (
        await rpc.start_server(Handler(), bind=place, insecure=True),
        await rpc.open_client(connect=place) as client,
    ):
        assert await client.rpc.add(1, 2) == 3
    # Who says nothing about itself comes in as anyone does.
    anyone = "authorization { users: [{ user: any, password: word }] }\nno_auth_user: any"
    server = start_nats(anyone, address="0.0.0.0")
    with pytest.raises(ValueError, match="asks for no authentication"):
        await rpc.start_server(Handler(), bind=f"nats://{host}:{server.port}/calc")
    server = start_nats("authorization { user: alice, password: word }", address="0.0.0.0")
    place = rpc.Nats(f"nats://{host}:{server.port}/calc", user="alice", password="word")
    error = await refusal(place)
    assert error.reason == "credentials"
    assert "insecure=True" in str(error)
    async with opened(place, place, insecure=True) as names:
        assert await names.add(1, 2) == 3


async def test_authentication_that_is_turned_off_while_it_runs(
    start_nats: StartNats, tmp_path: Path, until: Any, caplog: Any
) -> None:
    """Whoever serves beyond this host does so no longer."""
    host = own_address()
    seed, key = user_seed(tmp_path, nkeys.PREFIX_BYTE_USER)
    config = f"authorization {{ users: [{{ nkey: {key.public_key.decode()} }}] }}"
    server = start_nats(config, address="0.0.0.0")
    place = rpc.Nats(f"nats://{host}:{server.port}/calc", nkey=seed)
    async with (
        await rpc.start_server(Handler(), bind=place),
        await rpc.open_client(connect=place, connect_timeout=0.5) as client,
    ):
        assert await client.rpc.add(1, 2) == 3
        server.reload("")
        server.kill()
        server.start()
        await until(lambda: "asks for no authentication" in caplog.text)
        with pytest.raises(rpc.ConnectionLostError, match="no server of the service"):
            while True:
                try:
                    await client.rpc.add(1, 2)
                except rpc.ConnectionLostError as error:
                    if error.sent is False:
                        raise
