"""Keys from a shell: made, authorized, used, revoked."""

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from berrymq_rpc.errors import AuthenticationError
from berrymq_rpc.jsonrpc import zeromq
from berrymq_rpc.security import CurveClient, KeyPair
from berrymq_rpc.security.key_pair import read_public

from .conftest import Running, endpoint_of

REFUSED = 5

Berrymq = Callable[..., "CompletedProcess[str]"]
Start = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name in ("server", "alice", "bob"):
        KeyPair.generate().save(tmp_path / "keys", name)
    return tmp_path / "keys"


def keys_of(keys: Path, name: str = "alice") -> list[str]:
    return ["--key", f"{keys}/{name}.key_secret", "--server-key", f"{keys}/server.key"]


def test_keygen(berrymq: Berrymq, tmp_path: Path) -> None:
    made = berrymq("keygen", "oven", "--folder", str(tmp_path / "keys"))
    assert made.returncode == 0
    pair = KeyPair.load(tmp_path / "keys" / "oven.key_secret")
    assert pair.public in made.stdout
    assert pair.secret not in made.stdout + made.stderr
    again = berrymq("keygen", "oven", "--folder", str(tmp_path / "keys"))
    assert again.returncode == 1
    assert "oven.key exists" in again.stderr
    assert KeyPair.load(tmp_path / "keys" / "oven.key_secret") == pair
    wrong = berrymq("keygen", "../oven", "--folder", str(tmp_path / "keys"))
    assert wrong.returncode == 2
    assert "cannot be the name of a key" in wrong.stderr


def test_authorize_and_revoke(berrymq: Berrymq, keys: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clients"
    secret = berrymq("authorize", str(folder), str(keys / "alice.key_secret"))
    assert secret.returncode == 2
    assert "give alice.key" in secret.stderr
    assert berrymq("authorize", str(folder), str(keys / "alice.key")).returncode == 0
    assert read_public(folder / "alice.key") == read_public(keys / "alice.key")
    assert berrymq("authorize", str(folder), str(keys / "alice.key")).returncode == 0
    (tmp_path / "other").mkdir()
    os.rename(keys / "bob.key", tmp_path / "other" / "alice.key")
    other = berrymq("authorize", str(folder), str(tmp_path / "other" / "alice.key"))
    assert other.returncode == 1
    assert "is another key: revoke it first" in other.stderr
    assert [file.name for file in folder.iterdir()] == ["alice.key"]
    missing = berrymq("revoke", str(folder), "carol")
    assert missing.returncode == 1
    assert "has no key of carol. It has: alice" in missing.stderr
    assert berrymq("revoke", str(folder), "alice").returncode == 0
    assert list(folder.iterdir()) == []
    assert berrymq("revoke", str(folder), "../keys/alice").returncode == 2
    assert (keys / "alice.key").exists()


def test_a_secret_is_not_copied_whatever_its_name(
    berrymq: Berrymq, keys: Path, tmp_path: Path
) -> None:
    os.replace(keys / "alice.key_secret", keys / "alice.key")
    refused = berrymq("authorize", str(tmp_path / "clients"), str(keys / "alice.key"))
    assert refused.returncode == 1
    assert "holds a secret key, which stays with its owner" in refused.stderr
    assert not (tmp_path / "clients").exists()


def test_a_server_of_another_user_can_read_the_key(
    berrymq: Berrymq, keys: Path, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        assert berrymq("authorize", str(tmp_path / "c"), str(keys / "alice.key")).returncode == 0
    finally:
        os.umask(before)
    assert (tmp_path / "c" / "alice.key").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


def test_a_key_under_two_names(berrymq: Berrymq, keys: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clients"
    assert berrymq("authorize", str(folder), str(keys / "alice.key")).returncode == 0
    os.replace(keys / "alice.key", keys / "alias.key")
    second = berrymq("authorize", str(folder), str(keys / "alias.key"))
    assert second.returncode == 1
    assert "this key is authorized already, as alice: revoke it first" in second.stderr
    assert [file.name for file in folder.iterdir()] == ["alice.key"]
    # Put there by hand.
    (folder / "alias.key").write_bytes((keys / "alias.key").read_bytes())
    (folder / "broken.key").write_text("no key")
    first = berrymq("revoke", str(folder), "alice")
    assert first.returncode == 1
    assert "its key is authorized under another name as well: revoke alias" in first.stderr
    assert sorted(file.name for file in folder.iterdir()) == ["alias.key", "broken.key"]
    assert berrymq("revoke", str(folder), "alias").returncode == 0
    assert berrymq("revoke", str(folder), "broken").returncode == 0


def test_a_node_with_keys(berrymq: Berrymq, start: Start, keys: Path, tmp_path: Path) -> None:
    clients = tmp_path / "clients"
    assert berrymq("authorize", str(clients), str(keys / "alice.key")).returncode == 0
    server = ["--key", str(keys / "server.key_secret"), "--authorized", str(clients)]
    with start("serve", "--bind", "tcp://127.0.0.1:*", "--show", *server) as node:
        endpoint = endpoint_of(node)
        assert berrymq("send", endpoint, "oven:hot", "1", *keys_of(keys)).returncode == 0
        assert berrymq("methods", endpoint, *keys_of(keys)).returncode == 0
        for refused, advice in (
            (berrymq("send", endpoint, "oven:hot", *keys_of(keys, "bob")), "has not authorized"),
            (berrymq("send", endpoint, "oven:hot"), "give --key and --server-key"),
            (
                berrymq(
                    *("call", endpoint, "connect_oneway", "--server-key", f"{keys}/bob.key"),
                    *("--key", f"{keys}/alice.key_secret"),
                ),
                "--server-key is not its key",
            ),
        ):
            assert refused.returncode == REFUSED
            assert advice in refused.stderr
        assert berrymq("revoke", str(clients), "alice").returncode == 0
        refused = berrymq("get", endpoint, "oven:hot", "--quiet", *keys_of(keys))
        assert refused.returncode == REFUSED


def test_a_new_key_beside_the_old_one(
    berrymq: Berrymq, start: Start, keys: Path, tmp_path: Path
) -> None:
    clients = tmp_path / "clients"
    assert berrymq("authorize", str(clients), str(keys / "alice.key")).returncode == 0
    listening = ["--bind", "tcp://127.0.0.1:*", "--key", f"{keys}/server.key_secret"]
    listening += ["--bind", "tcp://127.0.0.1:*", "--key", f"{keys}/bob.key_secret"]
    with start("serve", *listening, "--authorized", str(clients)) as node:
        endpoints = re.fullmatch("The node is at (.*), (.*)", node.line())
        assert endpoints is not None
        for endpoint, name in zip(endpoints.groups(), ("server", "bob"), strict=True):
            alice = ["--key", f"{keys}/alice.key_secret", "--server-key", f"{keys}/{name}.key"]
            assert berrymq("send", endpoint, "oven:hot", *alice).returncode == 0
    wrong = berrymq("serve", *listening[:4], *listening[6:], "--authorized", str(clients))
    assert wrong.returncode == 2
    assert "several --key want a --bind each" in wrong.stderr


def test_the_variable_names_one_file(
    berrymq: Berrymq, start: Start, keys: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a folder: mine"
    os.rename(keys, folder)
    server = ["--authorized", str(folder)]
    variable = {"BERRYMQ_KEY": str(folder / "server.key_secret")}
    with start("serve", "--bind", "tcp://127.0.0.1:*", *server, **variable) as node:
        sent = berrymq("send", endpoint_of(node), "oven:hot", *keys_of(folder))
        assert (sent.returncode, sent.stderr) == (0, "")


def test_a_key_that_is_revoked_while_messages_are_shown(
    berrymq: Berrymq, start: Start, keys: Path, tmp_path: Path
) -> None:
    clients = tmp_path / "clients"
    assert berrymq("authorize", str(clients), str(keys / "alice.key")).returncode == 0
    server = ["--key", str(keys / "server.key_secret"), "--authorized", str(clients)]
    with start("serve", "--bind", "tcp://127.0.0.1:*", *server) as node:
        endpoint = endpoint_of(node)
        with start("tail", endpoint, *keys_of(keys)) as tail:
            assert tail.note().startswith("following ")
            assert berrymq("revoke", str(clients), "alice").returncode == 0
            assert tail.end() == REFUSED
            assert "has not authorized this client's key" in "\n".join(tail.rest("stderr"))


def call_by_json_rpc(endpoint: str, security: CurveClient | None) -> None:
    with zeromq.RPCClient(endpoint, timeout=10_000, security=security) as client:
        # The methods of a node are there.
        assert isinstance(client.connect_oneway(), str)


def zeromq_listener_of(running: Running) -> str:
    found = re.fullmatch(r"JSON-RPC over ZeroMQ at (\S+)", running.line())
    assert found is not None
    return found[1]


def test_the_zeromq_listeners_have_keys_too(
    berrymq: Berrymq, start: Start, keys: Path, tmp_path: Path
) -> None:
    clients = tmp_path / "clients"
    assert berrymq("authorize", str(clients), str(keys / "alice.key")).returncode == 0
    server = ["--key", str(keys / "server.key_secret"), "--authorized", str(clients)]
    alice, bob = (
        CurveClient(keys / f"{name}.key_secret", server=keys / "server.key")
        for name in ("alice", "bob")
    )
    listening = ["--zeromq", "tcp://0.0.0.0:*", *server]
    with start("serve", "--bind", "tcp://127.0.0.1:*", *listening) as node:
        endpoint = zeromq_listener_of(node).replace("0.0.0.0", "127.0.0.1")
        call_by_json_rpc(endpoint, alice)
        for refused in (bob, None):
            with pytest.raises(AuthenticationError):
                call_by_json_rpc(endpoint, refused)
    with start("serve", "--bind", "tcp://127.0.0.1:*") as node:
        plain = endpoint_of(node)
        with start("bridge", "--connect", plain, *listening) as bridge:
            endpoint = zeromq_listener_of(bridge).replace("0.0.0.0", "127.0.0.1")
            call_by_json_rpc(endpoint, alice)
            for refused in (bob, None):
                with pytest.raises(AuthenticationError):
                    call_by_json_rpc(endpoint, refused)
        for arguments, text in (
            (["--http", ":0", *server], "--authorized is for ZeroMQ listeners"),
            (["--zeromq", "tcp://127.0.0.1:*", *server[2:]], "--authorized wants --key"),
            (["--zeromq", "tcp://127.0.0.1:*", *server[:2]], "--key wants --server-key"),
        ):
            wrong = berrymq("bridge", "--connect", plain, *arguments)
            assert wrong.returncode == 2
            assert text in wrong.stderr


def test_keys_from_the_environment(berrymq: Berrymq, start: Start, keys: Path) -> None:
    server = ["--key", str(keys / "server.key_secret"), "--authorized", str(keys)]
    with start("serve", "--bind", "tcp://127.0.0.1:*", *server) as node:
        variables = {
            "BERRYMQ_KEY": str(keys / "alice.key_secret"),
            "BERRYMQ_SERVER_KEY": read_public(keys / "server.key"),
        }
        sent = berrymq("send", endpoint_of(node), "oven:hot", **variables)
        assert (sent.returncode, sent.stderr) == (0, "")


def test_a_server_without_keys(berrymq: Berrymq, start: Start, keys: Path) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*") as node:
        endpoint = endpoint_of(node)
        refused = berrymq("send", endpoint, "oven:hot", *keys_of(keys))
        assert refused.returncode == REFUSED
        assert "the server has no key: leave --key" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--key", "alice.key_secret"], "--key wants --server-key"),
        (["--server-key", "nonsense"], "no such file, and no public key"),
        (["--key", "nowhere", "--server-key", "x"], "no such file"),
    ],
)
def test_what_is_missing(berrymq: Berrymq, arguments: list[str], text: str) -> None:
    wrong = berrymq("send", "tcp://127.0.0.1:1", "a:b", *arguments)
    assert wrong.returncode == 2
    assert text in wrong.stderr


def test_what_a_node_is_missing(berrymq: Berrymq, keys: Path) -> None:
    secret = str(keys / "server.key_secret")
    for arguments, text in (
        (["--key", secret], "--key wants --authorized"),
        (["--authorized", str(keys)], "--authorized wants --key"),
        (["--key", secret, "--authorized", str(keys), "--hello"], "--hello comes without a key"),
    ):
        wrong = berrymq("serve", *arguments)
        assert wrong.returncode == 2
        assert text in wrong.stderr
