import subprocess
import sys

import pytest

from berrymq_rpc.runtime.extra import install_command

from .conftest import BERRYMQ, ENVIRONMENT, ROOT, SECONDS

COMMANDS = ["call", "get", "methods", "send", "serve", "stub", "tail"]


def test_help(berrymq) -> None:
    result = berrymq("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout
    assert "130  ended by Ctrl-C" in result.stdout
    # No line of a list is cut.
    assert "..." not in result.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_commands(berrymq, name) -> None:
    result = berrymq(name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"Usage: python -m berrymq_rpc {name} " in result.stdout


def test_nothing_to_do(berrymq) -> None:
    result = berrymq()
    assert result.returncode == 2
    assert "Commands:" in result.stdout + result.stderr


def test_unknown_command(berrymq) -> None:
    result = berrymq("sned")
    assert (result.returncode, result.stdout) == (2, "")
    assert "No such command 'sned'" in result.stderr


def without(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command where a module is not installed."""
    program = (
        f"import sys; sys.modules[{module!r}] = None; from berrymq_rpc.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize("name", ["click", "rich"])
def test_without_the_extra(name) -> None:
    result = without(name, "--help")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"The berrymq command needs {name}, which is not installed. It comes with the extra "
        f'"cli": {install_command("cli")}\n'
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["call", "nats://127.0.0.1/calc", "add"],
        ["methods", "nats://127.0.0.1/calc"],
        ["stub", "nats://127.0.0.1/calc"],
        ["queues", "nats://127.0.0.1"],
        ["send", "nats://127.0.0.1", "a:b"],
        ["serve", "--cluster", "nats://127.0.0.1"],
        ["send", "nats://127.0.0.1/calc", "a:b"],
        ["tail", "nats://127.0.0.1/calc", "a:b"],
        ["get", "nats://127.0.0.1/calc", "a:b"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_without_the_extra_nats(arguments) -> None:
    result = without("nats", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert line.endswith(
        "NATS needs nats-py, which is not installed. It comes with the extra "
        f'"nats": {install_command("nats")}'
    )


def test_the_package_works_without_the_extra() -> None:
    program = (
        "import sys; sys.modules['click'] = sys.modules['rich'] = None\n"
        "import berrymq_rpc, berrymq_rpc.connect, berrymq_rpc.rpc; berrymq_rpc.Node"
    )
    subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, cwd=ROOT, check=True)


def test_an_output_that_is_full(berrymq, server) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*BERRYMQ, "call", server, "divide", "1"],
            env=ENVIRONMENT,
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == "Error: cannot write: No space left on device\n"


def test_no_output_at_all(server) -> None:
    command = " ".join([*BERRYMQ, "call", server, "divide", "1", ">&-", "2>&-"])
    result = subprocess.run(command, shell=True, env=ENVIRONMENT, cwd=ROOT, timeout=SECONDS)
    assert result.returncode == 0


def test_a_reader_that_has_seen_enough(server) -> None:
    """The exit status in a pipe, as a shell shows it."""
    command = (
        f"{' '.join(BERRYMQ)} call {server} countdown 3 0.1 | head -1; echo ${{PIPESTATUS[0]}}"
    )
    result = subprocess.run(
        ["bash", "-c", command],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (result.stdout, result.stderr) == ("3\n141\n", "")
