"""Messages to a peer that answers each: order, what is sent again, what is refused, the end."""

import asyncio
from typing import Any

import pytest

from berrymq_rpc.errors import ConnectionLostError, OverloadedError, ServiceClosedError
from berrymq_rpc.exchange import serial_sender as module
from berrymq_rpc.exchange.serial_sender import MAX_WAITING, SerialSender


class Client:
    """Answers calls with what the test has put there, and otherwise with "ok"."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[Any, ...]] = []

    async def call(self, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        self.calls.append(arguments)
        answer = self.answers.pop(0) if self.answers else "ok"
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.001)


async def test_in_order_and_again() -> None:
    client = Client("ok", ConnectionLostError("gone"), TimeoutError(), OverloadedError("full"))
    sender = SerialSender(client, "it", "T")
    for number in range(3):
        sender.notify("send_message", "T", "a:b", number)
    await sender.drain(10)
    numbers = [call[-1] for call in client.calls]
    assert numbers == [0, 1, 1, 1, 1, 2]
    assert client.calls[0] == ("send_message", "T", "a:b", 0)
    sender.close()


async def test_what_the_peer_refuses_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(ValueError("not this"))
    sender = SerialSender(client, "it", "T")
    sender.notify("send_message", "T", 0)
    sender.notify("send_message", "T", 1)
    await sender.drain(10)
    assert [call[-1] for call in client.calls] == [0, 1]
    assert "not this" in caplog.text
    sender.close()


@pytest.mark.parametrize("answer", ["invalid token", "timeout", ServiceClosedError("closed")])
async def test_with_the_next_token(answer: Any) -> None:
    client = Client("ok", answer)
    sender = SerialSender(client, "it", "T")
    sender.notify("send_message", "T", 0)
    sender.notify("send_message", "T", 1)
    await sender.forgotten.wait()
    with pytest.raises(ServiceClosedError):
        sender.notify("send_message", "T", 2)
    sender.renew("U")
    sender.notify("send_message", "U", 2)
    await sender.drain(10)
    assert [call[1:] for call in client.calls] == [("T", 0), ("T", 1), ("U", 1), ("U", 2)]
    sender.close()


async def test_bounds_and_the_end(caplog: pytest.LogCaptureFixture) -> None:
    sender = SerialSender(Client(), "it", "T")
    for number in range(MAX_WAITING):
        sender.notify("send_message", "T", number)
    with pytest.raises(OverloadedError):
        sender.notify("send_message", "T", "one more")
    sender.close()
    assert "100 messages were not sent" in caplog.text
    with pytest.raises(ServiceClosedError):
        sender.notify("send_message", "T", 1)
    sender.renew("U")
    await sender.drain(0)
