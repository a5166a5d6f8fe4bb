"""Any bytes at all where keys are read: files, questions of ZAP, greetings."""

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from berrymq_rpc import rpc
from berrymq_rpc.rpc.transport.curve import find_refusal
from berrymq_rpc.rpc.transport.zap import authenticate
from berrymq_rpc.security.authorization import KeyFolder
from berrymq_rpc.security.key_pair import read_public

ALICE, BOB = rpc.KeyPair.generate(), rpc.KeyPair.generate()

each_its_own = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

# -- files of keys -------------------------------------------------------------------------------

words = st.sampled_from(
    ["metadata", "curve", "public-key", "secret-key", "=", '"', "'", "#", "\n", "\r", "    ", "\t"]
) | st.sampled_from([ALICE.public, BOB.public, ALICE.secret, ALICE.public[:-1], "\0", "\ud800"])
texts = st.lists(words | st.text(max_size=5), max_size=30).map("".join)
contents = st.binary(max_size=200) | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))


@each_its_own
@given(contents)
def test_files(tmp_path: Path, content: bytes) -> None:
    """Either it is a key, which is in the file, or a `ValueError` that shows no secret."""
    public, secret = tmp_path / "it.key", tmp_path / "it.key_secret"
    for file in (public, secret):
        file.write_bytes(content)
    secret.chmod(0o600)
    refusals = []
    try:
        assert read_public(public).encode() in content
    except ValueError as error:
        refusals.append(str(error))
    try:
        pair = rpc.KeyPair.load(secret)
    except ValueError as error:
        refusals.append(str(error))
    else:
        assert (pair.public, pair.secret) == (ALICE.public, ALICE.secret)
        assert ALICE.secret.encode() in content
    if b"secret-key" in content and b"public-key" not in content:
        assert ALICE.secret not in "".join(refusals)


@each_its_own
@given(st.lists(contents, max_size=4))
def test_a_folder_of_files(tmp_path: Path, files: list[bytes]) -> None:
    """It authorizes the keys that can be read, and each other file none."""
    for file in tmp_path.iterdir():
        file.unlink()
    for number, content in enumerate(files):
        (tmp_path / f"user{number}.key").write_bytes(content)
    folder = KeyFolder(tmp_path)
    for key in (ALICE.public, BOB.public, ALICE.secret):
        user = folder.check(key)
        if user is not False:
            assert isinstance(user, str)
            number = re.fullmatch(r"user(\d)", user)
            assert number is not None
            assert key.encode() in files[int(number[1])]


# -- questions of ZAP ----------------------------------------------------------------------------


class Asking:
    """Asks the thread as libzmq does, and as it never would."""

    def __init__(self, socket: Any, domain: bytes) -> None:
        self.socket = socket
        self.domain = domain

    def question(self, key: str, number: bytes = b"1") -> list[bytes]:
        secret = z85.decode(key.encode())
        return [b"", b"1.0", number, self.domain, b"127.0.0.1", b"", b"CURVE", secret]

    def answer(self) -> list[bytes]:
        assert self.socket.poll(5000)
        found: list[bytes] = self.socket.recv_multipart()
        return found


@pytest.fixture
def asking() -> Iterator[Asking]:
    with zmq.Context() as context:
        security = rpc.CurveServer(BOB, {ALICE.public})
        domain, release = authenticate(
            context, security.authorization, loop=None, endpoint="tcp://127.0.0.1:9"
        )
        with context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect("inproc://zeromq.zap.01")
            yield Asking(socket, domain)
        release()
        # Its socket belongs to the context, too.
        for thread in threading.enumerate():
            if thread.name == "berrymq_rpc zap":
                thread.join(10)


frames = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([b"", b"1.0", b"CURVE", b"NULL", b"PLAIN", b"berrymq_rpc.1"]),
    min_size=1,
    max_size=12,
)


@each_its_own
@given(frames, st.integers(0, 7), st.binary(max_size=40))
@example([b"", b"1.0", b"", b"", b"", b"", b"", b""], 0, b"")
def test_questions(asking: Asking, other: list[bytes], place: int, part: bytes) -> None:
    """Who is not authorized is never accepted, and the next question is answered."""
    changed = asking.question(ALICE.public, b"changed")
    changed[place] = part
    asking.socket.send_multipart(other)
    asking.socket.send_multipart(changed)
    asking.socket.send_multipart(asking.question(BOB.public, b"bob"))
    asking.socket.send_multipart(asking.question(ALICE.public, b"alice"))
    answers: list[tuple[bytes, bytes]] = []
    while (b"alice", b"200") not in answers:
        _, version, number, status, *rest = asking.answer()
        assert (version, len(rest)) == (b"1.0", 3)
        answers.append((number, status))
    refusals = (b"400", b"500")
    # By their numbers, in the order of the questions.
    expected = [(b"bob", (b"400",)), (b"alice", (b"200",))]
    if changed[1] == b"1.0":
        # The delimiter, the number and the address come back or are shown, no more; libzmq gives
        # no name of a peer.
        harmless = place in (0, 2, 4, 5)
        unchanged = asking.question(ALICE.public, b"changed") == changed
        expected.insert(0, (changed[2], (b"200",) if harmless or unchanged else refusals))
    if len(other) == len(changed) and other[1] == b"1.0":
        expected.insert(0, (other[2], refusals))
    for (number, status), (expected_number, statuses) in zip(answers, expected, strict=True):
        assert number == expected_number
        assert status in statuses


# -- greetings -----------------------------------------------------------------------------------

mechanisms = st.sampled_from([b"NULL", b"CURVE", b"PLAIN", b"GSSAPI", b""]) | st.binary(max_size=20)
greetings = st.binary(max_size=100) | st.builds(
    lambda mechanism, rest: b"\xff\0\0\0\0\0\0\0\1\x7f\3\0" + mechanism.ljust(20, b"\0") + rest,
    mechanisms,
    st.binary(max_size=60),
)


@settings(max_examples=30)
@given(greetings, st.booleans())
async def test_greetings(greeting: bytes, has_keys: bool) -> None:
    """Whatever a server says, a client gets a reason, or none, and no other error."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read(12)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        security = rpc.CurveClient(ALICE, server=BOB.public) if has_keys else None
        reason = await find_refusal(f"tcp://127.0.0.1:{port}", security)
    name = greeting[12:32].rstrip(b"\0")
    if len(greeting) < 64:
        assert reason is None
    elif has_keys:
        assert reason == {b"NULL": "no keys", b"CURVE": "handshake"}.get(name)
    else:
        assert reason == ("keys wanted" if name == b"CURVE" else None)
