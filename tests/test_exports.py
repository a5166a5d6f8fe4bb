"""Each module lists its public names in one sorted `__all__`, and all of them exist."""

import importlib
from pathlib import Path

import pytest

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
    private = [name for name in package.__all__ if name.startswith("_") and name != "__version__"]
    assert private == []
