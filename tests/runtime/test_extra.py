"""The advice where a package of an extra is missing: right for how this one was installed."""

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc.runtime import extra
from berrymq_rpc.runtime.extra import install_command, missing_package

ROOT = Path(__file__).resolve().parents[2]


class Installed:
    """A distribution with the record of where it came from."""

    def __init__(self, record: str | None) -> None:
        self.record = record

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.record


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Have the package in ``site-packages``, with a record."""

    def install(record: Any) -> None:
        text = record if record is None or isinstance(record, str) else json.dumps(record)
        monkeypatch.setattr(extra, "_ROOT", tmp_path)
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(text))

    return install


def test_from_an_index(installed: Any) -> None:
    installed(None)
    assert install_command("nats") == 'pip install "berrymq-rpc[nats]"'


def test_in_a_clone() -> None:
    assert install_command("nats") == f'pip install -e "{ROOT}[nats]"'


def test_from_a_folder(installed: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a clone"
    folder.mkdir()
    installed({"url": folder.as_uri(), "dir_info": {}})
    assert install_command("http") == f'pip install "{folder}[http]"'


@pytest.mark.parametrize("name", ["a`touch x`", 'a"b', "a$HOME", "a!b", "a\\b"])
def test_a_folder_that_a_shell_would_read(installed: Any, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    installed({"url": folder.as_uri(), "dir_info": {}})
    assert install_command("http") == f"pip install '{folder}[http]'"


def test_from_a_wheel(installed: Any, tmp_path: Path) -> None:
    wheel = tmp_path / "berrymq_rpc-0.1.0-py3-none-any.whl"
    wheel.touch()
    installed({"url": wheel.as_uri(), "archive_info": {}})
    assert install_command("cli") == f'pip install "berrymq-rpc[cli] @ {wheel.as_uri()}"'
    wheel.unlink()
    assert install_command("cli") == 'pip install "berrymq-rpc[cli]"'


def test_from_an_archive_of_a_host(installed: Any) -> None:
    installed({"url": "https://example.org/b.tar.gz", "archive_info": {}})
    assert install_command("cli") == (
        'pip install "berrymq-rpc[cli] @ https://example.org/b.tar.gz"'
    )


@pytest.mark.parametrize(("revision", "end"), [({"requested_revision": "v1"}, "@v1"), ({}, "")])
def test_from_git(installed: Any, revision: dict[str, str], end: str) -> None:
    record = {"url": "https://example.org/b", "vcs_info": {"vcs": "git", **revision}}
    installed(record)
    assert install_command("cli") == (
        f'pip install "berrymq-rpc[cli] @ git+https://example.org/b{end}"'
    )


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"url": 1}', "null"])
def test_a_record_that_says_nothing(installed: Any, record: str) -> None:
    installed(record)
    assert install_command("cli") == 'pip install "berrymq-rpc[cli]"'


def test_without_a_distribution(installed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    installed(None)
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert install_command("cli") == 'pip install "berrymq-rpc[cli]"'


def test_a_stray_file_of_another_project(installed: Any, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n', encoding="utf-8")
    installed(None)
    assert install_command("cli") == 'pip install "berrymq-rpc[cli]"'


def test_the_error() -> None:
    error = missing_package("NATS needs nats-py", "nats", "nats")
    assert error.name == "nats"
    assert str(error) == (
        'NATS needs nats-py, which is not installed. It comes with the extra "nats": '
        + install_command("nats")
    )


def test_only_it_writes_such_texts() -> None:
    files = [*(ROOT / "berrymq_rpc").rglob("*.py"), ROOT / "berrymq_rpc_pytest.py"]
    written = {path.name for path in files if "pip install" in path.read_text(encoding="utf-8")}
    # The other one is about what the package cannot do without.
    assert written == {"extra.py", "installation.py"}


def test_the_extras_that_errors_name_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in [*(ROOT / "berrymq_rpc").rglob("*.py"), ROOT / "berrymq_rpc_pytest.py"]
    )
    named = {
        *re.findall(r"""install_command\(["']([\w-]+)["']\)""", text),
        *re.findall(r'missing_package\([^)]*?, "([\w-]+)", [\w".]+\s*\)', text),
    }
    assert named >= {"cli", "http", "nats", "nats-server"}
    assert named <= set(project["optional-dependencies"])
