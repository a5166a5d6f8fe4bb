"""What ``top --json`` says of a server that goes."""

import json
import time
from typing import Any

import pytest

from berrymq_rpc.cli.failure import Failed, Refused, Unreachable
from berrymq_rpc.cli.top.command import _again
from berrymq_rpc.cli.top.source import Source, page_address


class Scripted(Source):
    """A source that answers what is in a list, in its order."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(page_address("127.0.0.1:1"), None, None)
        self._answers = list(answers)

    def ask(self) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer, None


def notes(text: str) -> list[tuple[str, str]]:
    return [(note["note"], note["message"]) for note in map(json.loads, text.splitlines())]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def test_each_reason_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    gone, other = Unreachable("nothing answers"), Failed("status 500")
    assert _again(Scripted(gone, gone, gone, other, other, {"version": 1})) == {"version": 1}
    assert notes(capsys.readouterr().err) == [
        ("lost", "nothing answers; asking again"),
        ("lost", "status 500; asking again"),
        ("restored", "http://127.0.0.1:1 answers again"),
    ]


def test_nothing_is_told_of_a_server_that_stays(capsys: pytest.CaptureFixture[str]) -> None:
    assert _again(Scripted({"version": 1})) == {"version": 1}
    assert capsys.readouterr().err == ""


def test_a_token_that_is_refused_ends_it() -> None:
    with pytest.raises(Refused):
        _again(Scripted(Refused("the token is wrong", reason="credentials")))
