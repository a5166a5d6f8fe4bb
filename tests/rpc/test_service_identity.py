"""The version and the description of a service, for NATS's discovery."""

import sys
import types
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.rpc.service_identity import (
    MAX_DESCRIPTION,
    NO_VERSION,
    ServiceIdentity,
)


def handler_of(module: str = "oven", **attributes: Any) -> Any:
    return type("Oven", (rpc.AttrHandler,), {"__module__": module, **attributes})()


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("oven", "1.2.3"), ("oven.parts", None), ("oven.grill", "2.0.0-rc.1+x")):
        module = types.ModuleType(name)
        if version is not None:
            module.__version__ = version  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("handler", "version"),
    [
        (handler_of(), "1.2.3"),
        (handler_of("oven.parts"), "1.2.3"),
        (handler_of("oven.grill"), "2.0.0-rc.1+x"),
        (handler_of(__version__="3.4.5"), "3.4.5"),
        (handler_of("nowhere"), NO_VERSION),
        (handler_of("nowhere", __version__="1.0"), NO_VERSION),
        (handler_of("nowhere", __version__="1.0.0\n"), NO_VERSION),
        (handler_of("nowhere", __version__="01.0.0"), NO_VERSION),
        (handler_of("nowhere", __version__="1.0." + "0" * 200), NO_VERSION),
        (handler_of("nowhere", __version__=1), NO_VERSION),
        (handler_of("nowhere", __version__=property(lambda self: 1 / 0)), NO_VERSION),
        ({"__version__": "1.0.0"}, NO_VERSION),
        (rpc.AttrHandler(), NO_VERSION),
        (None, NO_VERSION),
    ],
)
def test_versions(handler: Any, version: str) -> None:
    assert ServiceIdentity.of(handler).version == version


@pytest.mark.parametrize(
    ("doc", "description"),
    [
        ("The oven of the kitchen.", "The oven of the kitchen."),
        ("The oven\n    of the kitchen.\n\n    It is hot.", "The oven of the kitchen."),
        (None, "berrymq_rpc"),
        ("", "berrymq_rpc"),
        ("x" * 9999, "x" * MAX_DESCRIPTION),
    ],
)
def test_descriptions(doc: str | None, description: str) -> None:
    assert ServiceIdentity.of(handler_of(__doc__=doc)).description == description


@pytest.mark.parametrize("handler", [{}, None, rpc.AttrHandler()])
def test_what_has_no_description_of_its_own(handler: Any) -> None:
    assert ServiceIdentity.of(handler) == ServiceIdentity(NO_VERSION, "berrymq_rpc")
