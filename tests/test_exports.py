"""Each module lists its public names in one sorted `__all__`, and all of them exist."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import berrymq_rpc

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "berrymq_rpc").rglob("*.py")
    # A program, not a module.
    if path.name != "__main__.py"
)

#: Packages of extras: a module that needs one of them cannot be imported without it.
OPTIONAL = {"aiohttp", "msgspec", "nats"}


def kind_then_name(name: str) -> tuple[int, str]:
    """The order of ruff's rule RUF022: constants, classes, the rest."""
    if name.isupper() and len(name) > 1:
        return 0, name
    return (1 if name[:1].isupper() else 2), name


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_and_real(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    exported = getattr(module, "__all__", None)
    assert exported is not None, f"{name} has no __all__"
    assert list(exported) == sorted(set(exported), key=kind_then_name)
    assert [word for word in exported if not hasattr(module, word)] == []


def test_package_exports_no_private_name() -> None:
    package = importlib.import_module("berrymq_rpc")
    private = [name for name in package.__all__ if name.startswith("_")]
    # A program that imports all names would have it as its own `__version__`, which servers show.
    assert private == []


def test_version_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert berrymq_rpc.__version__ == version("berrymq-rpc") == project["version"]
    command = [sys.executable, "-m", "berrymq_rpc", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f"berrymq, version {project['version']}\n"


def test_version_where_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.delitem(vars(berrymq_rpc), "__version__", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(AttributeError, match="not installed"):
        _ = berrymq_rpc.__version__


def test_version_that_changes_says_so_in_changes() -> None:
    changes = (ROOT / "CHANGES.rst").read_text(encoding="utf-8")
    newest = re.search(r"^(\d[\w.]*) \((.+)\)\n-+$", changes, re.MULTILINE)
    assert newest is not None
    assert newest[1] == berrymq_rpc.__version__
    # A release takes both away together.
    readme = " ".join((ROOT / "README.rst").read_text(encoding="utf-8").split())
    assert (newest[2] == "unreleased") is ("There is no release yet" in readme)


WITHOUT_EXTRAS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import berrymq_rpc
from berrymq_rpc import bus, connect, exchange, monitor, rpc, security
for module in (berrymq_rpc, bus, connect, exchange, monitor, rpc, security):
    for name in module.__all__:
        getattr(module, name)
print("imported")
"""


def test_what_needs_no_extra() -> None:
    """The base installation has aiozmq, msgpack and pyzmq, and all public names but few."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    packages = {
        re.split(r"[\[<>=]", requirement)[0]
        for name in set(extras) - {"docs", "dist", "lint", "test"}
        for requirement in extras[name]
    }
    modules = importlib.metadata.packages_distributions()
    missing = {module for module, names in modules.items() if packages & set(names)} | OPTIONAL
    assert {"aiohttp", "click", "msgspec", "nats"} <= missing
    command = [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS.format(missing=missing)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("imported\n", "")
