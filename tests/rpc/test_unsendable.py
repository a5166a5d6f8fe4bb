"""What cannot be sent: one short error, raised where the call is awaited."""

import asyncio
import logging
import traceback
from typing import Any

import pytest

from berrymq_rpc import rpc


class Thing:
    pass


class Broken:
    pass


def refuse(value: Any) -> bytes:
    raise KeyError("this packer has a fault")


TABLE = {7: (Broken, refuse, bytes)}


class Handler(rpc.AttrHandler):
    @rpc.method
    def echo(self, value: Any) -> Any:
        return value

    @rpc.method
    def plain(self) -> Any:
        return {"a": [Thing()]}

    @rpc.method
    async def coroutine(self) -> Any:
        return {"a": [Thing()]}

    @rpc.method
    async def stream(self, value: Any = None) -> Any:
        yield Thing()


DIALECTS = ["native", "aiozmq", "jsonrpc"]


def is_short(error: BaseException) -> bool:
    text = "".join(traceback.format_exception(error))
    return text.count("Traceback") == 1 and len(text.splitlines()) < 30


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_await_raises(pair: Any, dialect: str) -> None:
    async with pair(Handler(), dialect=dialect) as (_, client):
        call = client.rpc.echo({"x": Thing()})
        assert call.done()
        with pytest.raises(TypeError, match=r"Thing .*(packed|JSON)") as caught:
            await call
        assert is_short(caught.value)
        # As with all that a call fails with, one does not end what runs beside it.
        good, bad = await asyncio.gather(
            client.rpc.echo(1), client.rpc.echo(Thing()), return_exceptions=True
        )
        assert (good, type(bad)) == (1, TypeError)
        assert client.rpc.echo(Thing()).exception() is not None
        with pytest.raises(TypeError, match="Thing") as caught:
            client.notify.echo(Thing())
        assert is_short(caught.value)


async def test_it_may_be_cancelled_and_closed(pair: Any) -> None:
    async with pair(Handler()) as (_, client):
        call = client.rpc.echo(Thing())
        assert not call.cancel()
        await call.aclose()
        assert isinstance(call.exception(), TypeError)


async def test_a_stream(pair: Any) -> None:
    async with pair(Handler()) as (_, client):
        with pytest.raises(TypeError, match="Thing"):
            async for _ in client.rpc.stream(Thing()):
                pytest.fail("it ran")


async def test_a_tasks_call(pair: Any) -> None:
    async with pair(Handler()) as (_, client), asyncio.timeout(5):
        with pytest.raises(TypeError, match="Thing"):
            await asyncio.create_task(client.rpc.echo(Thing()))


async def test_a_closed_client(pair: Any) -> None:
    async with pair(Handler()) as (_, client):
        client.close()
        call = client.rpc.echo(1)
        with pytest.raises(rpc.ServiceClosedError, match="closed") as caught:
            await call
        assert (caught.value.method, caught.value.sent) == ("echo", False)


def test_a_client_without_asyncio() -> None:
    with (
        rpc.SyncClient(connect="mem://nobody") as client,
        pytest.raises(TypeError, match="Thing") as caught,
    ):
        client.rpc.echo(Thing())
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1


async def test_a_packer_that_fails_is_the_cause(pair: Any) -> None:
    async with pair(Handler(), translation_table=TABLE) as (_, client):
        with pytest.raises(TypeError, match=r"args\[0\]\[0\]: .*has a fault") as caught:
            await client.rpc.echo([Broken()])
    assert isinstance(caught.value.__cause__, KeyError)
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 2


async def test_an_argument_that_raises_what_no_future_can(pair: Any) -> None:
    class Odd:
        def to_dict(self) -> Any:
            raise StopIteration(5)

    async with pair(Handler(), dialect="jsonrpc") as (_, client):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await client.rpc.echo(Odd())


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("method", ["plain", "coroutine"])
async def test_a_result(
    pair: Any, dialect: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = {"log_exceptions": True, "send_traceback": True}
    async with pair(Handler(), server=server, dialect=dialect) as (_, client):
        with caplog.at_level(logging.ERROR), pytest.raises(TypeError, match="Thing") as caught:
            await client.call(method)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "".join(traceback.format_exception(record.exc_info[1])).count("Traceback") == 1
    for note in getattr(caught.value, "__notes__", []):
        assert note.count("Traceback (most recent call last)") == 1


async def test_an_item(pair: Any) -> None:
    async with pair(Handler(), server={"send_traceback": True}) as (_, client):
        with pytest.raises(TypeError, match=r"the item.*Thing") as caught:
            async for _ in client.rpc.stream():
                pytest.fail("it was packed")
        (note,) = caught.value.__notes__
        assert note.count("Traceback (most recent call last)") == 1
