"""The two files that users install, made by ``make dist`` in a copy of the tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: What git does not keep, or is git's own; environments and what tools have cached.
NOT_OF_THE_TREE = shutil.ignore_patterns(
    *(".git", ".venv*", ".debian*", ".hypothesis", ".*_cache", ".coverage*", "htmlcov"),
    *("__pycache__", "node_modules", "_build", "*.egg-info", "build"),
)

#: A user's environment has no settings of this run.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTEST_", "COV_", "MAKE", "MFLAGS"))
    and name not in ("PYTHONPATH", "VIRTUAL_ENV")
}


class Dist(NamedTuple):
    """What ``make dist`` has made.

    Attributes:
        tree: the copy that it was made in.
        wheel: the wheel.
        sdist: the source distribution.
        output: what the command has printed.
    """

    tree: Path
    wheel: Path
    sdist: Path
    output: str

    def make(self, *arguments: str, tree: Path) -> str:
        """Run ``make`` in a tree, and return what it printed."""
        return make(*arguments, tree=tree)


def run(
    *command: object, cwd: Path | None = None, fails: bool = False, timeout: float = 280
) -> str:
    """Run a command as a user does, and return what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    assert (done.returncode != 0) is fails, done.stdout
    return done.stdout


def make(*arguments: str, tree: Path) -> str:
    base = getattr(sys, "_base_executable", sys.executable)
    command = ("make", "--no-print-directory", f"PYTHON={base}", *arguments)
    return run(*command, cwd=tree, timeout=580)


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    tree = tmp_path_factory.mktemp("dist") / "tree"

    def ignored(folder: str, names: list[str]) -> set[str]:
        # tests/dist stays: only that of the root is what `make dist` has made.
        made = {"dist"} if Path(folder) == ROOT else set()
        return NOT_OF_THE_TREE(folder, names) | made

    shutil.copytree(ROOT, tree, ignore=ignored, symlinks=True)
    output = make("dist", tree=tree)
    (wheel,) = (tree / "dist").glob("*.whl")
    (sdist,) = (tree / "dist").glob("*.tar.gz")
    return Dist(tree, wheel, sdist, output)


class Environment:
    """An environment with nothing but what a test installs.

    Args:
        folder: where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run(sys.executable, "-m", "venv", folder / "venv")
        self.bin = folder / "venv" / "bin"

    def install(self, *what: object) -> None:
        """Install distributions, by name or by file."""
        quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
        self.python("-m", "pip", "install", *quiet, *what)

    def python(self, *arguments: object, fails: bool = False) -> str:
        """Run its Python, and return what it printed."""
        return run(self.bin / "python", *arguments, cwd=self.folder, fails=fails)

    def shell(self, command: str) -> str:
        """Have a shell run a command line where the environment is activated."""
        return run("sh", "-c", f". venv/bin/activate; {command}", cwd=self.folder)

    def program(self, text: str) -> str:
        """Run a program with warnings as errors, and return what it printed."""
        script = self.folder / "program.py"
        script.write_text(text, encoding="utf-8")
        return self.python("-W", "error", script)

    def packages(self) -> set[str]:
        """The distributions that are installed, but for pip's own."""
        lines = self.python("-m", "pip", "list", "--format=freeze").lower().split()
        return {line.partition("==")[0] for line in lines} - {"pip", "setuptools"}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)
