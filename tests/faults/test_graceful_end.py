"""A server that closes while it is called: what runs ends, what does not run goes elsewhere."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from berrymq_rpc import rpc

Until = Callable[..., Awaitable[None]]
Outcomes = Callable[..., Awaitable[list[Any]]]

#: Seconds that a busy machine may take longer than is asked for.
SLACK = 2.0

#: Seconds for which a closing server is held, so that calls reach it after it said goodbye and
#: before its client can know.
HELD = 0.3


def ran(server: Any) -> int:
    """How often `count` ran at a server that has ended."""
    (line,) = (line for line in server.lines if line.startswith("ran "))
    return int(line.removeprefix("ran "))


async def close_held(client: rpc.Client, seconds: float = HELD) -> Any:
    """Have the one server of `client` close, and hold it so that it cannot say so."""
    # Its greeting, with its window, has arrived.
    assert await client.rpc.add(1) == 2
    closing = client.rpc.close(seconds)
    # One message is refused or run as a whole: the next must be another one.
    await asyncio.sleep(HELD / 6)
    return closing


async def test_calls_in_progress_finish_within_the_grace(server_process: Any, until: Until) -> None:
    server = server_process("--grace", "20")
    async with await rpc.open_client(connect=server.endpoint) as client:
        calls = [client.rpc.sleep(0.5) for _ in range(100)]
        await until(lambda: len(server.lines) == 100)
        server.send(signal.SIGTERM)
        assert await asyncio.gather(*calls) == [0.5] * 100
        ended = time.monotonic()
        assert await asyncio.to_thread(server.wait) == 0
        # Long before the grace is over: there is nothing to wait for.
        assert time.monotonic() - ended < 2 + SLACK


async def test_calls_that_take_longer_are_stopped_and_told_so(
    server_process: Any, until: Until, outcomes: Outcomes
) -> None:
    """They are not begun anew elsewhere, as they have run."""
    first = server_process("--grace", "0.3")
    second = server_process()
    async with await rpc.open_client(connect=[first.endpoint, second.endpoint]) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        calls = [client.rpc.forever() for _ in range(20)]
        await until(lambda: len(first.lines) == len(second.lines) == 10)
        first.send(signal.SIGTERM)
        await until(lambda: sum(call.done() for call in calls) == 10)
        stopped = await outcomes([call for call in calls if call.done()], 10)
        assert {type(error) for error in stopped} == {rpc.ServiceClosedError}
        assert "'forever' was accepted, and running for" in str(stopped[0])
        assert await asyncio.to_thread(first.wait) == 0
        assert first.lines.count("cancelled") == 10
        assert second.lines.count("started") == 10
        for call in calls:
            call.cancel()


@pytest.mark.nodebug
async def test_one_of_two_servers_ends_under_load(
    server_process: Any, until: Until, outcomes: Outcomes
) -> None:
    """No call fails, and none runs twice."""
    first, second = server_process("--grace", "10"), server_process()
    made = 0

    async def call_on(client: rpc.Client, stop: asyncio.Event) -> None:
        nonlocal made
        while not stop.is_set():
            made += 100
            await asyncio.gather(*[client.rpc.count() for _ in range(100)])

    async with await rpc.open_client(connect=[first.endpoint, second.endpoint]) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        slow = [client.rpc.sleep(0.3) for _ in range(50)]
        stop = asyncio.Event()
        callers = [asyncio.create_task(call_on(client, stop)) for _ in range(10)]
        await until(lambda: made > 5_000)
        first.send(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait) == 0
        more = made + 2_000
        await until(lambda: made > more)
        stop.set()
        assert await outcomes(callers, 20) == [None] * 10
        assert await outcomes(slow, 20) == [0.3] * 50
        assert ran(first) > 0
        assert ran(first) + await client.rpc.counted() == made
        assert client.statistics()["calls_in_flight"] == 0


async def test_calls_that_cross_the_goodbye_go_to_another_server(
    server_process: Any, until: Until, outcomes: Outcomes
) -> None:
    first = server_process("--grace", "5")
    second = server_process()
    async with await rpc.open_client(connect=[first.endpoint, second.endpoint]) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        async with await rpc.open_client(connect=first.endpoint) as other:
            closing = await close_held(other)
            changing = [1]
            calls = [client.rpc.echo(changing) for _ in range(100)]
            changing.append(2)
            buffer = bytearray(b"1" * 100_000)
            large = client.rpc.echo([1, buffer]), client.rpc.echo(buffer)
            buffer[:] = b"2" * 100_000
            streams = [client.rpc.numbers(5) for _ in range(10)]
            items = [asyncio.create_task(collect(stream)) for stream in streams]
            assert set(await outcomes(calls, 10)) == {(1,)}
            data = b"1" * 100_000
            assert await outcomes(large, 10) == [(1, data), data]
            assert await outcomes(items, 10) == [[0, 1, 2, 3, 4]] * 10
            assert await closing is None
        assert await asyncio.to_thread(first.wait) == 0
        assert client.statistics()["calls_in_flight"] == 0


async def collect(stream: Any) -> list[Any]:
    return [item async for item in stream]


async def test_the_deadline_of_a_call_that_is_sent_again_stays(
    server_process: Any, until: Until
) -> None:
    first = server_process("--grace", "5")
    second = server_process()
    async with await rpc.open_client(connect=[first.endpoint, second.endpoint]) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        async with await rpc.open_client(connect=first.endpoint) as other:
            closing = await close_held(other)
            began = time.monotonic()
            quick = client.with_timeout(2 * HELD)
            calls = [quick.rpc.forever() for _ in range(2)]
            await until(lambda: second.lines.count("started") == 2)
            for call in calls:
                with pytest.raises(rpc.RPCTimeoutError, match="'forever'"):
                    await call
            assert 2 * HELD <= time.monotonic() - began < 2 * HELD + SLACK
            await closing
        await until(lambda: second.lines.count("cancelled") == 2)
        assert await asyncio.to_thread(first.wait) == 0
        assert "started" not in first.lines


async def test_calls_that_cross_the_goodbye_of_the_only_server(
    server_process: Any, until: Until, outcomes: Outcomes, unused_tcp: Callable[[], str]
) -> None:
    """They fail, and it is known that they did not run. What was not sent waits for the next."""
    endpoint = unused_tcp()
    server = server_process("--bind", endpoint, "--grace", "5")
    async with await rpc.open_client(connect=endpoint, connect_timeout=20) as client:
        closing = await close_held(client)
        crossing = [client.rpc.count() for _ in range(100)]
        errors = await outcomes(crossing, 10)
        assert {type(error) for error in errors} == {rpc.ServiceClosedError}
        assert str(errors[0]).endswith(": the server is closing: 'count' did not run")
        assert {error.sent for error in errors} == {False}
        unsent = client.rpc.count()
        assert await closing is None
        assert await asyncio.to_thread(server.wait) == 0
        assert ran(server) == 0
        assert not unsent.done()
        server_process("--bind", endpoint)
        assert await unsent is None
        assert await client.rpc.counted() == 1


async def test_all_servers_close_at_once(
    server_process: Any, until: Until, outcomes: Outcomes
) -> None:
    """Each is asked once."""
    servers = [server_process("--grace", "5") for _ in range(2)]
    async with await rpc.open_client(connect=[s.endpoint for s in servers]) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        closing = [client.rpc.close(HELD), client.rpc.close(HELD)]
        await asyncio.sleep(HELD / 6)
        errors = await outcomes([client.rpc.count() for _ in range(100)], 10)
        assert {type(error) for error in errors} == {rpc.ServiceClosedError}
        assert await outcomes(closing, 10) == [None, None]
        for server in servers:
            assert await asyncio.to_thread(server.wait) == 0
            assert ran(server) == 0
        assert client.statistics()["calls_in_flight"] == 0


async def test_a_method_that_meets_with_a_closed_service_is_not_run_again(
    server_process: Any, until: Until
) -> None:
    servers = [server_process() for _ in range(2)]
    async with await rpc.open_client(connect=[s.endpoint for s in servers]) as client:
        await until(lambda: client.statistics()["peers"] == 2)
        with pytest.raises(rpc.GenericError, match="another client is closed") as caught:
            await client.rpc.closed_elsewhere()
        assert caught.value.exc_type == "berrymq_rpc.errors.ServiceClosedError"
        for server in servers:
            server.send(signal.SIGTERM)
            assert await asyncio.to_thread(server.wait) == 0
        assert sum(map(ran, servers)) == 1


async def test_a_silent_client_does_not_keep_a_server_from_its_end(raw: Any) -> None:
    """It does not say that it has read the goodbye; a second is enough for those who do."""
    add = {"add": rpc.method(lambda a, b=1: a + b)}
    async with await rpc.start_server(add, bind="tcp://127.0.0.1:*", grace=20) as server:
        with raw.dealer(server.endpoints[0]) as client:
            client.send(raw.native_message(raw.record(raw.CALL, 7, "add", [1])))
            answers = await asyncio.to_thread(client.native_answers, 1)
            assert answers == [(raw.RESULT, 7, 2)]
            began = time.monotonic()
            server.close()
            async with asyncio.timeout(10):
                await server.wait_closed()
            assert time.monotonic() - began < 1 + SLACK
