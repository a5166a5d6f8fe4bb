"""The commands at a cluster: they join it for as long as they run."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")
pytest.importorskip("click", reason="the command needs click")

from berrymq_rpc.security import KeyPair
from berrymq_rpc.testing.nats_server import NatsServer

from .conftest import Start, started_command

USERS = """authorization {
    users = [
        {user: alice, password: secret}
        {user: bob, password: secret, permissions: {
            publish: {deny: "berrymq.default.job.>"}, subscribe: {deny: "berrymq.default.job.>"}}}
        {user: dave, password: secret, permissions: {
            publish: {deny: "$JS.>"}, subscribe: {allow: ">"}}}
        {user: carol, password: secret, permissions: {
            publish: {deny: "berrymq-rpc.calc.>"}, subscribe: {deny: "berrymq-rpc.calc.>"}}}
    ]
}"""


@pytest.fixture(scope="module")
def guarded() -> Any:
    with NatsServer(USERS) as server:
        yield server


def place_of(server: NatsServer, user: str = "") -> str:
    return f"nats://{user}{'@' if user else ''}127.0.0.1:{server.port}"


def test_send_and_tail(nats_server: NatsServer, berrymq, start: Start) -> None:
    """A message reaches those who follow it in its namespace, and nobody else."""
    where = (nats_server.url, "--namespace", "cli-tail")
    with start("tail", *where[:1], "job:*", *where[1:], "--json") as tail:
        text = f"following job:* at {nats_server.url} (cli-tail)"
        assert json.loads(tail.note())["message"] == text
        for namespace in ("cli-other", "cli-tail"):
            result = berrymq(
                "send", nats_server.url, "job:new", "1", f"of={namespace}", "--namespace", namespace
            )
            assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        message = json.loads(tail.line())
        assert (message["id"], message["args"]) == ("job:new", [1])
        assert message["kwargs"] == {"of": "cli-tail"}
        assert tail.end(signal.SIGINT) == -signal.SIGINT
        assert "".join(tail.rest("stderr")) == ""


def test_tail_while_nats_is_away(start_nats: Callable[..., NatsServer], start: Start) -> None:
    """It reports that, and shows none of its own events."""
    server = start_nats()
    with start("tail", server.url) as tail:
        assert "following" in tail.note()
        server.kill()
        assert tail.note() == f"connection to {server.url} lost; waiting for it to come back"
        server.start()
        assert "restored" in tail.note()
        with started_command("send", server.url, "job:new", "1") as send:
            assert send.end() == 0
        assert tail.line().endswith("  job:new  1")


def test_get(nats_server: NatsServer, berrymq, start: Start) -> None:
    where = ("--namespace", "cli-get")
    with start("get", nats_server.url, "job:*", *where, "--count", "2") as get:
        assert get.note() == f"waiting for job:* at {nats_server.url} (cli-get)"
        for number in "12":
            assert berrymq("send", nats_server.url, "job:new", number, *where).returncode == 0
        assert [line[10:] for line in (get.line(), get.line())] == ["job:new  1", "job:new  2"]
        assert get.end() == 0
    result = berrymq("get", nats_server.url, "job:*", *where, "--timeout", "0.1", "--quiet")
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr == "Error: no message job:* within 0.1 s\n"


def test_a_durable_queue(nats_server: NatsServer, berrymq) -> None:
    """What it keeps comes to the next who asks, once; sending says whether it is kept."""
    where = ("--namespace", "cli-durable")

    def get(identifier: str, timeout: str = "20") -> tuple[int, str, str]:
        options = ("--durable", "workers", "--timeout", timeout, "--quiet")
        result = berrymq("get", nats_server.url, identifier, *options, *where)
        return result.returncode, result.stdout[10:], result.stderr

    lost = berrymq("send", nats_server.url, "job:new", "0", "--durable", *where)
    assert lost.returncode == 1
    assert lost.stderr.startswith(
        f"Error: {nats_server.url}: no durable queue keeps 'job:new': open one first"
    )
    assert get("job:*", "0.1")[0] == 4
    for number in "12":
        kept = berrymq("send", nats_server.url, "job:new", number, "--durable", *where)
        assert (kept.returncode, kept.stderr) == (0, "")
    assert get("job:*") == (0, "job:new  1\n", "")
    assert get("job:*") == (0, "job:new  2\n", "")
    code, _, errors = get("other:*")
    assert code == 1
    assert "exists with identifier='job:*', not 'other:*'" in errors
    listed = berrymq("queues", nats_server.url, "--json", *where)
    (queue,) = map(json.loads, listed.stdout.splitlines())
    assert (queue["name"], queue["waiting"], queue["unacknowledged"]) == ("workers", 0, 0)


@pytest.mark.parametrize(
    ("command", "user"),
    [
        (("send", "job:new"), ""),
        (("send", "job:new"), "token"),
        (("tail",), "alice:wrong"),
        (("get", "job:new"), "alice:wrong"),
        (("queues",), "alice:wrong"),
    ],
)
def test_who_is_not_let_in(
    guarded: NatsServer, berrymq, command: tuple[str, ...], user: str
) -> None:
    name, *arguments = command
    result = berrymq(name, place_of(guarded, user), *arguments)
    assert (result.returncode, result.stdout) == (5, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {place_of(guarded)}: ")
    assert "refused this side" in line
    assert "wrong" not in line
    assert "token" not in line


@pytest.mark.parametrize("command", ["send", "tail", "get"])
def test_what_is_not_allowed(guarded: NatsServer, berrymq, command: str) -> None:
    """One line, which names the subject."""
    result = berrymq(command, place_of(guarded, "bob:secret"), "job:new")
    assert (result.returncode, result.stdout) == (5, "")
    (line,) = result.stderr.splitlines()
    assert "does not let this side" in line
    assert "'berrymq.default.job" in line
    assert "secret" not in line


@pytest.mark.parametrize("command", [("call", "add"), ("methods",), ("send", "a:b")])
def test_a_service_that_is_not_allowed(
    guarded: NatsServer, berrymq, command: tuple[str, ...]
) -> None:
    name, *arguments = command
    place = f"{place_of(guarded, 'carol:secret')}/calc"
    result = berrymq(name, place, *arguments)
    assert (result.returncode, result.stdout) == (5, "")
    (line,) = result.stderr.splitlines()
    assert "berrymq-rpc.calc." in line
    assert "secret" not in line


def test_who_may_not_ask_for_durable_queues(guarded: NatsServer, berrymq) -> None:
    """Plain messages are sent if they are asked for."""
    place = place_of(guarded, "dave:secret")
    result = berrymq("send", place, "a:b")
    assert result.returncode == 5
    (line,) = result.stderr.splitlines()
    assert "'$JS.API.STREAM.NAMES'" in line
    assert "--no-durable" in line
    result = berrymq("send", place, "a:b", "--no-durable")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_login_that_others_cannot_see(guarded: NatsServer, berrymq) -> None:
    place = place_of(guarded)
    assert berrymq("send", place, "a:b", BERRYMQ_NATS_LOGIN="alice:secret").returncode == 0
    assert berrymq("send", place, "a:b", BERRYMQ_NATS_LOGIN="alice:wrong").returncode == 5
    # The address's own counts.
    place = place_of(guarded, "alice:secret")
    assert berrymq("send", place, "a:b", BERRYMQ_NATS_LOGIN="alice:wrong").returncode == 0


def test_an_nkey_and_certificates(
    start_nats: Callable[..., NatsServer], berrymq, tmp_path: Path
) -> None:
    """The options of NATS, for a cluster and for a service."""
    nkeys = pytest.importorskip("nkeys")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", "side.key", "-out", "side.pem"],
        cwd=tmp_path, check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    (tmp_path / "me.nk").write_bytes(seed)
    server = start_nats(
        f'tls {{ cert_file: "{tmp_path}/side.pem", key_file: "{tmp_path}/side.key", '
        f'ca_file: "{tmp_path}/side.pem", verify: true }}\n'
        f"authorization {{ users: [{{ nkey: {public} }}] }}"
    )
    place = f"nats+tls://127.0.0.1:{server.port}"
    ca = ("--nats-ca", str(tmp_path / "side.pem"))
    certificate = ("--nats-certificate", str(tmp_path / "side.pem"))
    certificate += ("--nats-certificate-key", str(tmp_path / "side.key"))
    nkey = ("--nkey", str(tmp_path / "me.nk"))
    for options, text in (
        (nkey, "CERTIFICATE_VERIFY_FAILED"),
        ((*ca, *certificate), "refused this side"),
    ):
        result = berrymq("send", place, "a:b", *options)
        assert result.returncode == 5, result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert text in result.stderr
    all_options = (*ca, *certificate, *nkey)
    assert berrymq("send", place, "a:b", *all_options).returncode == 0
    result = berrymq("call", f"{place}/calc", "add", *all_options, "--wait", "0.5")
    assert result.returncode == 3
    assert "NATS answers, but no server of the service 'calc' does" in result.stderr


def test_jetstream_is_off(guarded: NatsServer, berrymq) -> None:
    place = place_of(guarded, "alice:secret")
    assert berrymq("send", place, "a:b").returncode == 0
    for arguments in (
        ("send", place, "a:b", "--durable"),
        ("get", place, "a:b", "--durable", "workers"),
    ):
        result = berrymq(*arguments)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert "-js" in line or "no durable queue keeps 'a:b'" in line


def test_one_of_several_servers(nats_server: NatsServer, berrymq) -> None:
    place = f"nats://127.0.0.1:1,127.0.0.1:{nats_server.port}"
    assert berrymq("send", place, "a:b").returncode == 0


@pytest.mark.parametrize("command", ["send", "tail", "get"])
def test_no_server(berrymq, command: str) -> None:
    result = berrymq(command, "nats://alice:secret@127.0.0.1:1", "a:b", "--wait", "0.3")
    assert result.returncode == 3
    (line,) = result.stderr.splitlines()
    assert "no NATS server answered at nats://127.0.0.1:1 within 0.3 s" in line


def test_a_server_without_tls(nats_server: NatsServer, berrymq) -> None:
    place = f"nats+tls://alice:secret@127.0.0.1:{nats_server.port}"
    result = berrymq("send", place, "a:b")
    assert result.returncode == 5
    (line,) = result.stderr.splitlines()
    assert "speaks no TLS" in line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["send", "tcp://127.0.0.1:1", "a:b", "--namespace", "x"], "--namespace is for a cluster"),
        (["send", "tcp://127.0.0.1:1", "a:b", "--durable"], "--durable is for a cluster"),
        (["get", "tcp://127.0.0.1:1", "a:b", "--durable", "x"], "--durable is for a cluster"),
        (["send", "tcp://127.0.0.1:1", "a:b", "--nkey", "x"], "addresses that begin with nats://"),
        (["get", "nats://127.0.0.1", "a:b", "--shared"], "give --durable NAME"),
        (["get", "nats://127.0.0.1", "a:b", "--durable", "a b"], "characters A-Z"),
        (["send", "nats://127.0.0.1", "a:b", "--namespace", "a.b"], "characters A-Z"),
        (["send", "nats://127.0.0.1", "a:b", "--credentials", "/no/file"], "there is no file"),
        (["send", "nats://127.0.0.1", "a:b", "--nats-ca", "/no/file"], "cannot be used"),
        (["send", "nats://127.0.0.1", "a:b", "--wait", "0"], "more than 0 seconds"),
        (["send", "nats://alice:secret@", "a:b"], "nats://"),
        (["send", "nats://alice:secret@127.0.0.1/", "a:b"], "no service after its slash"),
        (["call", "nats://alice:secret@127.0.0.1", "add"], "names no service"),
        (["methods", "nats://alice:secret@127.0.0.1:0/calc"], "nats://"),
        (["queues", "nats://127.0.0.1/calc"], "is not a cluster"),
        (["queues", "nats://127.0.0.1", "--delete", "a", "--replay", "a"], "give one of them"),
        (["serve", "--namespace", "x"], "give --cluster"),
        (["serve", "--cluster", "nats://127.0.0.1", "--hello"], "give --bind"),
        (["serve", "--cluster", "tcp://127.0.0.1:1"], "is not a cluster"),
        (["bridge", "--connect", "nats://127.0.0.1", "--tcp", ":0", "--timeout", "1"], "--timeout"),
    ],
)
def test_wrong_command_lines(berrymq, arguments: list[str], text: str) -> None:
    result = berrymq(*arguments, COLUMNS="1000")
    assert result.returncode == 2
    assert text in result.stderr
    assert "secret" not in result.stderr


def test_keys_are_not_for_nats(berrymq, tmp_path) -> None:
    KeyPair.generate().save(tmp_path, "me")
    keys = ("--key", str(tmp_path / "me.key_secret"), "--server-key", str(tmp_path / "me.key"))
    for command in (
        ("send", "nats://127.0.0.1", "a:b"),
        ("tail", "nats://127.0.0.1"),
        ("get", "nats://127.0.0.1", "a:b"),
        ("call", "nats://127.0.0.1/calc", "add"),
        ("methods", "nats://127.0.0.1/calc"),
    ):
        result = berrymq(*command, *keys, COLUMNS="1000")
        assert result.returncode == 2, command
        assert "at nats" in result.stderr.lower()


def test_a_node(nats_server: NatsServer, berrymq, start: Start) -> None:
    """It is in a cluster alone, and shows what comes from there."""
    where = ("--namespace", "cli-serve")
    with start("serve", "--cluster", nats_server.url, *where, "--show") as node:
        assert node.line() == f"The node is in the cluster {nats_server.url} (cli-serve)"
        lines = []
        while not (lines and lines[-1].endswith("Ctrl-C ends the node.")):
            lines.append(node.line())
        (advice,) = [line for line in lines if " send " in line]
        assert advice.endswith(
            f'send {nats_server.url} greeting:hello "your words" --namespace cli-serve'
        )
        assert berrymq("send", nats_server.url, "a:b", "7", *where).returncode == 0
        assert node.line().endswith("  a:b  7")
        assert node.end(signal.SIGINT) == 0
        assert node.rest("stderr") == []


def test_a_gateway(nats_server: NatsServer, berrymq, start: Start) -> None:
    """A node with an address and a cluster: what is sent to the one reaches the other."""
    where = ("--namespace", "cli-gateway")
    options = ("--bind", "tcp://127.0.0.1:*", "--cluster", nats_server.url, *where)
    with (
        start("get", nats_server.url, "a:b", *where) as get,
        start("serve", *options, "--no-show") as node,
    ):
        assert "waiting" in get.note()
        endpoint = node.line().rpartition(" ")[2]
        assert "cluster" in node.line()
        assert berrymq("send", endpoint, "a:b", "7").returncode == 0
        assert get.line().endswith("  a:b  7")
        assert get.end() == 0
        assert node.end(signal.SIGTERM) == 0


def test_a_node_that_cannot_join(guarded: NatsServer, berrymq) -> None:
    result = berrymq("serve", "--cluster", place_of(guarded, "alice:wrong"))
    assert (result.returncode, result.stdout) == (5, "")
    assert "refused this side" in result.stderr
    assert "wrong" not in result.stderr
