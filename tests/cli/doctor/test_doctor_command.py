"""``berrymq doctor`` in processes of its own, the files of keys, and this installation."""

import json
import os
import signal
import socket
import tomllib
from pathlib import Path

import pytest

from berrymq_rpc.cli.doctor import installation
from berrymq_rpc.cli.doctor.check import NAMES, Status
from berrymq_rpc.cli.doctor.files import key_checks
from berrymq_rpc.cli.doctor.installation import examine_installation
from berrymq_rpc.security import KeyPair

from ..conftest import ROOT, berrymq, endpoint_of, node, start  # noqa: F401  (fixtures)
from ..test_entry import without
from .conftest import collected, statuses

PAGE = (ROOT / "docs" / "reference" / "command.rst").read_text(encoding="utf-8")


def test_all_is_well(node, berrymq) -> None:  # noqa: F811
    result = berrymq("doctor", node.endpoint)
    assert (result.returncode, result.stderr) == (0, "")
    *lines, last = result.stdout.splitlines()
    assert last == "All is well."
    assert [line.split()[:2] for line in lines[:3]] == [
        ["ok", "name"],
        ["ok", "address"],
        ["ok", "port"],
    ]


def test_json(node, berrymq) -> None:  # noqa: F811
    result = berrymq("doctor", node.endpoint, "--json")
    found = list(map(json.loads, result.stdout.splitlines()))
    assert {each["check"] for each in found} <= set(NAMES)
    for each in found:
        assert list(each) == ["check", "status", "message", "advice", "details"]
    # The page has all of them.
    row = PAGE.partition("   * - ``doctor``\n")[2].partition("   * - ``")[0]
    for key in found[0]:
        assert f"``{key}``" in row


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["tcp://127.0.0.1:1"], "no server is listening on port 1"),
        (["ipc:///nowhere/at/all"], "there is no file"),
        (["http://127.0.0.1:1"], "berrymq serve --http 127.0.0.1:1\n"),
        (["ws://127.0.0.1:1"], "berrymq serve --http 127.0.0.1:1\n"),
        (["nats://127.0.0.1:1"], "nats-server --port 1\n"),
    ],
)
def test_something_is_wrong(berrymq, arguments: list[str], text: str) -> None:  # noqa: F811
    result = berrymq("doctor", *arguments)
    assert (result.returncode, result.stderr) == (1, "")
    assert text in result.stdout
    assert result.stdout.endswith("1 check failed.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["tcp://host"],
        ["http://"],
        ["tcp://127.0.0.1:0"],
        ["mem://here"],
        ["oven"],
        ["tcp://h:1", "--timeout", "0"],
        ["tcp://h:1", "--ca", __file__],
        ["http://h:1", "--key", "a.key_secret"],
        ["--server-key", "a.key"],
    ],
)
def test_usage(berrymq, arguments: list[str]) -> None:  # noqa: F811
    result = berrymq("doctor", *arguments)
    assert (result.returncode, result.stdout) == (2, "")


def test_ctrl_c(start) -> None:  # noqa: F811
    """While a server says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with start("doctor", f"tcp://127.0.0.1:{port}", "--timeout", "60") as doctor:
            for name in ("name", "address", "port"):
                assert doctor.line().split()[1] == name
            assert doctor.end(signal.SIGINT) == -signal.SIGINT
            assert doctor.rest("stderr") == [""]


def test_keys(tmp_path: Path, start, berrymq) -> None:  # noqa: F811
    for name in ("server", "alice"):
        KeyPair.generate().save(tmp_path, name)
    trusted = tmp_path / "trusted"
    server = ("--key", str(tmp_path / "server.key_secret"), "--authorized", str(trusted))
    own = (
        "--key",
        str(tmp_path / "alice.key_secret"),
        "--server-key",
        str(tmp_path / "server.key"),
    )
    with start("serve", "--bind", "tcp://127.0.0.1:*", *server) as running:
        endpoint = endpoint_of(running)
        refused = berrymq("doctor", endpoint, *own)
        assert refused.returncode == 1
        assert "berrymq authorize" in refused.stdout
        berrymq("authorize", str(trusted), str(tmp_path / "alice.key"))
        assert berrymq("doctor", endpoint, *own).returncode == 0
        os.chmod(tmp_path / "alice.key_secret", 0o644)
        readable = berrymq("doctor", endpoint, *own)
        assert readable.returncode == 1
        assert f"chmod 600 {tmp_path}/alice.key_secret" in readable.stdout


# -- files ------------------------------------------------------------------------------------


def test_files_of_keys(tmp_path: Path) -> None:
    secret = KeyPair.generate().save(tmp_path, "alice")
    server = KeyPair.generate().save(tmp_path, "server").with_suffix(".key")
    checks, security = key_checks(str(secret), str(server))
    assert security is not None
    assert {check.status for check in checks} == {Status.OK}
    checks, security = key_checks(None, None)
    assert (checks, security) == ([], None)
    os.chmod(tmp_path, 0o777)
    checks, _ = key_checks(str(secret), str(server))
    assert [check.status for check in checks] == ["ok", "warning", "ok"]
    os.chmod(tmp_path, 0o700)
    for key, server_key, advice in (
        (str(secret), None, "give --server-key"),
        (str(tmp_path / "none.key_secret"), str(server), "berrymq keygen"),
        (str(secret), str(tmp_path / "none.key"), "ask whoever"),
        (str(secret), "short", "ask whoever"),
    ):
        checks, security = key_checks(key, server_key)
        assert security is None
        (wrong,) = [check for check in checks if check.status is Status.FAILED]
        assert advice in (wrong.advice or "")
    checks, security = key_checks(str(secret), str(secret.with_suffix(".key")))
    assert security is not None
    assert checks[-1].status is Status.WARNING
    assert KeyPair.load(secret).secret not in str(checks)


# -- this installation ------------------------------------------------------------------------


async def test_this_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await collected(examine_installation("0.1.0"))
    assert found["package"].text == "berrymq_rpc 0.1.0"
    assert "failed" not in statuses(found).values()
    assert {"python", "aiozmq", "msgpack", "pyzmq", "curve", "extras", "files", "loop"} < set(found)
    monkeypatch.setattr(installation, "find_spec", lambda name: name != "nats")
    found = await collected(examine_installation("0.1.0"))
    assert found["extras"].details["missing"] == ["nats"]
    assert "pip install" in found["extras"].text


def test_without_an_endpoint(berrymq) -> None:  # noqa: F811
    result = berrymq("doctor")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("ok       package   berrymq_rpc ")


def test_each_extra_is_known() -> None:
    """Those of users, not those for work on this package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    others = {"test", "lint", "docs", "dist", "nats-server"}
    assert set(installation.EXTRAS) == set(project["optional-dependencies"]) - others


@pytest.mark.parametrize("arguments", [["mdns://oven"], ["nats://127.0.0.1:4222/calc"]])
def test_an_extra_that_is_missing(arguments: list[str], nats_server) -> None:
    """It is a check that fails, with what to install."""
    place = arguments[0].replace("127.0.0.1:4222", f"127.0.0.1:{nats_server.port}")
    module = "zeroconf" if place.startswith("mdns") else "nats"
    result = without(module, "doctor", place, "--timeout", "0.5")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "It comes with the extra" in result.stdout
