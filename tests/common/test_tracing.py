"""What traces is installed for the process, and nothing by default."""

from typing import Any

from berrymq_rpc.common import tracing


def test_one_is_installed() -> None:
    before = tracing.installed()
    made: Any = object()
    tracing.install(made)
    try:
        assert tracing.installed() is made
    finally:
        tracing.install(before)
    assert tracing.installed() is before
