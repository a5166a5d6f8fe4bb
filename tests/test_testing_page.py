"""The pages on testing: they have each word of the kit. Their examples run in `test_projects`."""

import re
from pathlib import Path

import pytest

from berrymq_rpc.testing import Heard, Kit, KitServer, Link, MethodPlan, SyncKitServer
from berrymq_rpc.testing.heard import TIMEOUT as HEARD_TIMEOUT
from berrymq_rpc.testing.kit import CALL_TIMEOUT, TIMEOUT
from berrymq_rpc.testing.leaks import KINDS

DOCS = Path(__file__).resolve().parents[1] / "docs"
GUIDE = (DOCS / "howto" / "testing.rst").read_text(encoding="utf-8")
REFERENCE = (DOCS / "reference" / "testing.rst").read_text(encoding="utf-8")


def words_of(kind: type) -> set[str]:
    """The words of a class that the reference has; `test_reference.py` finds what it lacks."""
    (members,) = re.findall(
        rf"autoclass:: berrymq_rpc\.testing\.{kind.__name__}(?:\(\))?\n   :members: (.*)", REFERENCE
    )
    return set(members.split(", "))


@pytest.mark.parametrize("kind", [Kit, KitServer, Link, MethodPlan, Heard])
def test_each_word_is_in_the_table(kind: type) -> None:
    table = REFERENCE.partition("autoclass")[0]
    words = {word for text in re.findall(r"``(.*?)``", table) for word in re.findall(r"\w+", text)}
    assert words_of(kind) <= words


def test_the_plain_server_has_the_same_words() -> None:
    with Kit() as kit:
        server = kit.sync_serve({})
        assert isinstance(server, SyncKitServer)
        missing = {word for word in words_of(KitServer) if not hasattr(server, word)}
    assert missing == {"loop", "server"}


def test_each_word_is_in_the_guide() -> None:
    for kind in (Kit, MethodPlan, Link):
        for word in words_of(kind):
            assert re.search(rf"\b{word}\b", GUIDE), word
    assert set(re.findall(r"^``(\w+)\(", GUIDE, re.MULTILINE)) == words_of(MethodPlan)


def test_numbers() -> None:
    assert CALL_TIMEOUT == 5.0
    assert "timeout of 5 seconds" in GUIDE
    assert HEARD_TIMEOUT == TIMEOUT == 5.0
    assert "for 5\nseconds at most" in GUIDE
    assert "it waits, for 5 or" in GUIDE
    assert all(f'``"{kind}"``' in GUIDE for kind in KINDS)
