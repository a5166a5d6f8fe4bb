"""``berrymq completion``: scripts that shells run, and what they offer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from berrymq_rpc.security import KeyPair

from .conftest import ENVIRONMENT, ROOT, SECONDS

#: `complete -p` says how bash completes the command; the function is called as bash calls it.
BASH = """
eval "$(berrymq completion bash)"
complete -p berrymq >/dev/null || exit 9
compopt() {{ printf '%s\\n' compopt "$@"; }}
COMP_WORDS=({words}) COMP_CWORD={position}
_berrymq_completion berrymq
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

ZSH = """
autoload -U compinit; compinit -u -D
eval "$(berrymq completion zsh)"
print -r -- $_comps[berrymq]
words=({words}) CURRENT={position}
_describe() {{ for each in ${{(P)@[-1]}} ${{(P)@[-2]}}; do print -r -- ${{each%%:*}}; done }}
compadd() {{ print -rl -- ${{(P)@[-1]}} }}
_path_files() {{ print -- files }}
_berrymq_completion
"""

FISH = """
berrymq completion fish | source
complete --do-complete "{line}"
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The PATH with the command in it."""
    program = tmp_path / "bin" / "berrymq"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{PROGRAM}" "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


PROGRAM = "import sys; sys.argv[0] = 'berrymq'; from berrymq_rpc.cli import main; main()"


def run(shell: list[str], script: str, path: str, folder: Path) -> list[str]:
    result = subprocess.run(
        [*shell, script],
        env=ENVIRONMENT | {"PATH": path, "HOME": str(folder)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return [line.rstrip() for line in result.stdout.splitlines() if line.strip()]


def in_bash(path: str, folder: Path, *words: str) -> list[str]:
    script = BASH.format(words=" ".join(f"'{word}'" for word in words), position=len(words) - 1)
    return run(["bash", "--norc", "-c"], script, path, folder)


def test_bash(path: str, tmp_path: Path) -> None:
    assert {"serve", "send", "doctor", "completion"} <= set(in_bash(path, tmp_path, "berrymq", ""))
    assert in_bash(path, tmp_path, "berrymq", "se") == ["serve", "send"]
    assert in_bash(path, tmp_path, "berrymq", "call", "--js") == ["--json"]
    dialects = in_bash(path, tmp_path, "berrymq", "call", "--dialect", "")
    assert dialects == ["native", "aiozmq"]
    assert in_bash(path, tmp_path, "berrymq", "completion", "") == ["bash", "zsh", "fish"]


def test_files_of_keys(path: str, tmp_path: Path) -> None:
    for name in ("alice", "bob"):
        KeyPair.generate().save(tmp_path / "keys", name)
    secrets = in_bash(path, tmp_path, "berrymq", "call", "--key", "keys/")
    assert secrets == ["keys/alice.key_secret", "keys/bob.key_secret"]
    assert in_bash(path, tmp_path, "berrymq", "call", "--server-key", "keys/b") == ["keys/bob.key"]
    # The names of a folder.
    assert in_bash(path, tmp_path, "berrymq", "revoke", "keys", "") == ["alice", "bob"]
    # Where there are none, bash offers what it finds, by its own means.
    offered = in_bash(path, tmp_path, "berrymq", "call", "--key", "k")
    assert offered == ["compopt", "-o", "default"]
    assert in_bash(path, tmp_path, "berrymq", "revoke", "nowhere", "") == []


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh(path: str, tmp_path: Path) -> None:
    script = ZSH.format(words="berrymq doct", position=2)
    found = run(["zsh", "-f", "-c"], script, path, tmp_path)
    assert found[0] == "_berrymq_completion"
    assert "doctor" in found


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish(path: str, tmp_path: Path) -> None:
    script = FISH.format(line="berrymq doct")
    found = run(["fish", "--no-config", "-c"], script, path, tmp_path)
    assert [line.split("\t")[0] for line in found] == ["doctor"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(berrymq, shell: str) -> None:
    result = berrymq("completion", shell)
    assert (result.returncode, result.stderr) == (0, "")
    assert "_BERRYMQ_COMPLETE" in result.stdout
    assert str(ROOT) not in result.stdout


def test_usage(berrymq) -> None:
    assert berrymq("completion", "tcsh").returncode == 2
    assert berrymq("completion").returncode == 2
