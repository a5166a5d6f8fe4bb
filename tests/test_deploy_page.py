"""The page about two machines: its commands are run, and so is each file that comes with it."""

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from berrymq_rpc.security import KeyPair

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "docs" / "howto" / "deploy"
PAGE = (ROOT / "docs" / "howto" / "deploy.rst").read_text(encoding="utf-8")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
UNITS = ["plant.service", "node.service"]

#: Where the plant listens on the page.
PLANT, PORT = "192.0.2.1", 5555


def test_every_file_is_on_the_page_and_used() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    for file in FILES.iterdir():
        assert file.name in PAGE, file
        assert file.name in here, file


def commands() -> list[str]:
    """What is typed on the page, without the prompt, in order."""
    blocks = re.findall(r"\.\. code-block:: console\n\n((?:   .*\n|\n)+)", PAGE)
    text = "".join(blocks).replace("\\\n", " ")
    return re.findall(r"^   [#$] (.*)$", text, re.MULTILINE)


def settings(unit: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(FILES / unit)
    return parser["Service"]


class Machine:
    """The paths of the page below a folder, and a free port of loopback for the plant's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def words(self, command: str) -> list[str]:
        """A command of the page or of a unit, as it is run here."""
        for theirs, ours in {
            "/opt/plant/plant.py": str(ROOT / "examples" / "across_hosts" / "plant.py"),
            "/etc/plant": str(self.folder / "etc"),
            f"{PLANT}:{PORT}": f"127.0.0.1:{self.port}",
        }.items():
            command = command.replace(theirs, ours)
        program, *arguments = shlex.split(command)
        known = {
            "berrymq": [sys.executable, "-m", "berrymq_rpc"],
            "/opt/plant/venv/bin/berrymq": [sys.executable, "-m", "berrymq_rpc"],
            "/opt/plant/venv/bin/python": [sys.executable],
        }
        return [*known[program], *arguments]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(command),
            cwd=self.folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=30,
        )

    @contextmanager
    def service(self, unit: str) -> Iterator[None]:
        """What the unit starts; it must end as systemd asks it to, with status 0."""
        with subprocess.Popen(
            self.words(settings(unit)["ExecStart"]),
            cwd=self.folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert f"127.0.0.1:{self.port}" in process.stdout.readline()
                yield
                process.send_signal(signal.SIGTERM)
                assert process.wait(float(settings(unit)["TimeoutStopSec"])) == 0
            finally:
                process.kill()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def make_keys(machine: Machine) -> None:
    """Follow the page up to the keys."""
    for command in commands():
        if command.startswith(("berrymq keygen", "berrymq authorize")):
            if "authorize" in command:
                # It was carried to the plant, and the plant's to the office.
                shutil.copy(machine.folder / "keys" / "office.key", machine.folder)
                shutil.copy(machine.folder / "etc" / "plant.key", machine.folder)
            done = machine.run(command)
            assert done.returncode == 0, (command, done.stderr)


@pytest.mark.slow
def test_the_page_from_its_first_command_to_its_last(machine: Machine) -> None:
    make_keys(machine)
    typed = [command for command in commands() if command.startswith("berrymq ")]
    with machine.service("plant.service"):
        (methods,) = [command for command in typed if command.startswith("berrymq methods")]
        done = machine.run(methods)
        assert (done.returncode, "temperature" in done.stdout) == (0, True), done.stderr
        (call,) = [command for command in typed if command.startswith("berrymq call")]
        done = machine.run(call)
        # The line beneath it shows what it answers.
        (shown,) = re.findall(rf"^   \$ {re.escape(call)}\n   (.*)$", PAGE, re.MULTILINE)
        assert (done.returncode, done.stdout.strip()) == (0, shown), done.stderr
        plain = machine.run(call.partition(" --key")[0])
        assert (plain.returncode, "the server wants keys" in plain.stderr) == (5, True)
        (revoke,) = re.findall(r"``(berrymq revoke .*?)``", PAGE)
        assert machine.run(revoke).returncode == 0
        refused = machine.run(call)
        text = "has not authorized this client's key"
        assert (refused.returncode, text in refused.stderr) == (5, True), refused.stderr
        assert text in PAGE
    down = machine.run(f"{call} --wait 0.2")
    assert (down.returncode, "no peer answers" in down.stderr) == (3, True)


@pytest.mark.slow
def test_a_node_as_a_service(machine: Machine) -> None:
    make_keys(machine)
    keys = " --key keys/office.key_secret --server-key plant.key"
    with machine.service("node.service"):
        done = machine.run(f"berrymq send tcp://{PLANT}:{PORT} oven:hot 1{keys}")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_units(unit: str, tmp_path: Path) -> None:
    """systemd has no complaint about them, and the rights that they leave are few."""
    if shutil.which("systemd-analyze") is None:
        # What can be told without it: that it is what it says, and runs what the page installs.
        assert settings(unit)["ExecStart"].startswith("/opt/plant/venv/bin/")
        return
    text = (FILES / unit).read_text(encoding="utf-8")
    program = tmp_path / "python"
    program.symlink_to(sys.executable)
    verified = tmp_path / unit
    verified.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={program}", text, flags=re.MULTILINE))
    for arguments in (("verify",), ("security", "--offline=true", "--threshold=20")):
        done = subprocess.run(
            ["systemd-analyze", *arguments, str(verified)],
            capture_output=True,
            text=True,
            timeout=30,
        )
        # What it says of other units of this machine is no matter of ours.
        ours = [line for line in done.stderr.splitlines() if unit in line]
        assert (done.returncode, ours) == (0, []), (arguments, done.stdout, done.stderr)


# -- the container file ------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    lines = (FILES / "Containerfile").read_text(encoding="utf-8").splitlines()
    found = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(name, rest) for name, rest in found]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_container_file(tmp_path: Path, machine: Machine) -> None:
    """Each of its instructions is followed below a folder instead of in an image."""

    def placed(text: str) -> str:
        return re.sub(r"(?<![\w.])/(src|opt|etc)\b", rf"{tmp_path}/\1", text)

    make_keys(machine)
    ran: dict[str, list[str]] = {}
    for name, rest in instructions():
        match name:
            case "COPY":
                *sources, target = rest.split()
                place = Path(placed(target))
                for source in sources:
                    path = ROOT / source
                    if path.is_dir():
                        ignored = shutil.ignore_patterns("__pycache__")
                        shutil.copytree(path, place, ignore=ignored)
                    else:
                        place.mkdir(parents=True, exist_ok=True)
                        shutil.copy(path, place)
            case "RUN":
                # The image's Python is this one.
                words = shlex.split(placed(rest))
                words[0] = sys.executable if words[0] == "python" else words[0]
                subprocess.run(words, check=True, timeout=240, cwd=tmp_path)
            case "ENTRYPOINT" | "CMD":
                ran[name] = json.loads(placed(rest))
            case "FROM":
                version = re.search(r"python:(\d+)\.(\d+)", rest)
                assert version is not None
                assert (3, 11) <= (int(version[1]), int(version[2])) <= (3, 14)
            case _:
                assert (name, rest) in [("USER", "10001:10001"), ("EXPOSE", f"{PORT}")]
    shutil.copytree(machine.folder / "etc" / "authorized", tmp_path / "etc/plant/authorized")
    command = [*ran["ENTRYPOINT"], *ran["CMD"]]
    command = [word.replace(f"0.0.0.0:{PORT}", f"127.0.0.1:{machine.port}") for word in command]
    secret = KeyPair.load(machine.folder / "etc" / "plant.key_secret").secret
    # Nothing but what an image has, and the secret as `--secret ...,type=env` gives it.
    with subprocess.Popen(
        command, cwd=tmp_path, env={"PLANT_KEY": secret}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("the plant is at ")
            (call,) = [command for command in commands() if command.startswith("berrymq call")]
            assert machine.run(call).stdout.strip() == "200.0"
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_the_secret_for_a_container(machine: Machine) -> None:
    """The line that takes it out of its file."""
    make_keys(machine)
    (line,) = [command for command in commands() if "secret create" in command]
    extract = line.partition(" | podman")[0]
    done = subprocess.run(
        ["sh", "-c", extract],
        cwd=machine.folder / "etc",
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert done.stdout == KeyPair.load(machine.folder / "etc" / "plant.key_secret").secret


# -- the firewall ------------------------------------------------------------------------------


def test_the_firewall(machine: Machine) -> None:
    text = (FILES / "plant.nft").read_text(encoding="utf-8")
    # The port of the units and the address of the page.
    assert re.findall(r"dport (\d+)", text) == [str(PORT)] * 2
    assert "ip saddr != 192.0.2.2 drop" in text
    assert "*office*\n(192.0.2.2)" in PAGE or "the *office* (192.0.2.2)" in PAGE
