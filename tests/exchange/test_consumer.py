"""Acknowledgement after the work: what goes back, when, to whom, and how often."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from berrymq_rpc import Empty, rpc
from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.exchange import ExportedFunctions, Node, QueueConnection, SyncNode
from berrymq_rpc.jsonrpc.bridge import Bridge
from berrymq_rpc.testing import link_faults

_numbers = itertools.count()


@asynccontextmanager
async def place(**options: Any) -> AsyncIterator[tuple[Bus, Node, str]]:
    """A node that keeps queues, its bus, and its endpoint."""
    bus = Bus()
    async with Node(f"mem://consumer-{next(_numbers)}", bus, **options) as node:
        yield bus, node, node.endpoints[0]


@asynccontextmanager
async def consumer(endpoint: str, **options: Any) -> AsyncIterator[QueueConnection]:
    options.setdefault("ack_wait", 60)
    async with (
        Node(None, Bus()) as node,
        await node.connect_via_queue("job:*", endpoint, shared=True, **options) as queue,
    ):
        yield queue


async def statistic(node: Node, name: str, value: int) -> None:
    while node.statistics()[name] != value:
        await asyncio.sleep(0)


async def reached(queue: QueueConnection) -> list[Any]:
    """What the queue has now, by the first argument."""
    found = []
    try:
        while True:
            found.append((await queue.get_nowait()).args[0])
    except Empty:
        return found


class TestSettling:
    @pytest.mark.parametrize("is_awaited", [True, False])
    async def test_a_good_end_acknowledges(self, is_awaited: bool) -> None:
        async with place() as (bus, node, endpoint), consumer(endpoint) as queue:
            bus.twitter("job:new", 1)
            getting: Any = await queue.get() if is_awaited else queue.get()
            async with getting as message:
                assert (message.args, message.redelivered) == ((1,), False)
                assert node.statistics()["messages_unacknowledged"] == 1
                assert await reached(queue) == []
            assert node.statistics()["messages_unacknowledged"] == 0
            assert await reached(queue) == []

    @pytest.mark.parametrize("is_awaited", [True, False])
    async def test_an_exception_refuses(self, is_awaited: bool) -> None:
        async with place() as (bus, node, endpoint), consumer(endpoint) as queue:
            bus.twitter("job:new", 1)
            bus.twitter("job:new", 2)
            with pytest.raises(ZeroDivisionError):
                async with await queue.get() if is_awaited else queue.get():
                    raise ZeroDivisionError
            assert node.statistics()["messages_unacknowledged"] == 0
            # At its old place, and marked.
            messages = [await queue.get(), await queue.get()]
            assert [message.args[0] for message in messages] == [1, 2]
            assert [message.redelivered for message in messages] == [True, False]

    async def test_a_cancelled_worker_refuses(self) -> None:
        async with place() as (bus, _node, endpoint), consumer(endpoint) as queue:
            bus.twitter("job:new", 1)
            began = asyncio.Event()

            async def work() -> None:
                async with queue.get():
                    began.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(work())
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await reached(queue) == [1]

    async def test_by_hand(self) -> None:
        async with place() as (bus, node, endpoint), consumer(endpoint) as queue:
            for number in range(3):
                bus.twitter("job:new", number)
            first, second, third = [await queue.get() for _ in range(3)]
            assert await second.ack()
            assert await first.nak()
            assert await third.in_progress()
            assert node.statistics()["messages_unacknowledged"] == 1
            async with third:
                await third.nak()
            # The block's end adds nothing to it.
            assert await reached(queue) == [0, 2]

    async def test_twice(self, caplog: pytest.LogCaptureFixture) -> None:
        async with place() as (bus, _, endpoint), consumer(endpoint) as queue:
            bus.twitter("job:new", 1)
            message = await queue.get()
            assert await message.ack()
            assert not await message.ack()
            assert not await message.nak()
            assert not await message.in_progress()
            assert (
                "acknowledge arrived too late: the queue has taken the message back" in caplog.text
            )
            assert await reached(queue) == []

    async def test_after_a_delay(self) -> None:
        async with place() as (bus, node, endpoint), consumer(endpoint) as queue:
            bus.twitter("job:new", 1)
            bus.twitter("job:new", 2)
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await (await queue.get()).nak(delay=0.2)
            assert node.statistics()["messages_waiting"] == 2
            assert (await queue.get()).args == (2,)
            message = await queue.get()
            assert (message.args, message.redelivered) == ((1,), True)
            assert loop.time() - began >= 0.19

    @pytest.mark.parametrize("delay", [-1, float("nan"), "soon", True, None])
    async def test_a_delay_is_a_number_of_seconds(self, delay: Any) -> None:
        async with place() as (bus, _, endpoint), consumer(endpoint) as queue:
            bus.twitter("job:new", 1)
            message = await queue.get()
            with pytest.raises(ValueError, match="delay must be a number of seconds"):
                await message.nak(delay)
            assert await message.ack()

    async def test_a_queue_that_acknowledges_on_receipt(self) -> None:
        async with place() as (bus, node, endpoint), consumer(endpoint, ack_wait=None) as queue:
            bus.twitter("job:new", 1)
            with pytest.raises(ValueError, match="give connect_via_queue an ack_wait"):
                async with queue.get():
                    raise AssertionError
            # It has taken nothing.
            assert node.statistics()["messages_waiting"] == 1
            with pytest.raises(ValueError, match="give connect_via_queue an ack_wait"):
                async with await queue.get():
                    raise AssertionError
            # It goes to the next.
            message = await queue.get()
            assert message.args == (1,)
            for settling in (message.ack(), message.nak(), message.in_progress()):
                with pytest.raises(ValueError, match="acknowledges messages on receipt"):
                    await settling

    async def test_a_get_is_a_coroutine(self) -> None:
        async with place() as (bus, _, endpoint), consumer(endpoint) as queue:
            for number in range(3):
                bus.twitter("job:new", number)
            task = asyncio.create_task(queue.get())
            assert (await task).args == (0,)
            assert (await asyncio.wait_for(queue.get(), 5)).args == (1,)
            (message,) = await asyncio.gather(queue.get())
            assert message.args == (2,)

    async def test_a_cancelled_get_takes_none_of_the_tries(self) -> None:
        async with place() as (bus, _, endpoint), consumer(endpoint, tries=1) as queue:
            for number in range(50):
                task = asyncio.create_task(queue.get())
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
            bus.twitter("job:new", 1)
            async with queue.get() as message:
                assert (message.args, message.redelivered) == ((1,), False)


class TestGoingBack:
    async def test_when_the_consumer_is_gone(self) -> None:
        async with place() as (bus, _node, endpoint), consumer(endpoint) as living:
            async with consumer(endpoint) as gone:
                bus.twitter("job:new", 1)
                await gone.get()
                assert await reached(living) == []
            message = await living.get()
            assert (message.args, message.redelivered) == ((1,), True)

    async def test_when_its_connection_is_lost(self, caplog: pytest.LogCaptureFixture) -> None:
        async with place() as (bus, node, endpoint), consumer(endpoint) as queue:
            for number in range(20):
                bus.twitter("job:new", number)
            messages = [await queue.get() for _ in range(20)]
            assert await messages[7].ack()
            link_faults(endpoint).cut()
            await statistic(node, "messages_unacknowledged", 0)
            assert node.statistics()["messages_waiting"] == 19
            # The same connection is restored, and knows nothing of those.
            again = [await queue.get() for _ in range(19)]
            assert [message.args[0] for message in again] == [
                number for number in range(20) if number != 7
            ]
            assert all(message.redelivered for message in again)
            assert not await messages[0].ack()
            assert "arrived too late" in caplog.text
            # What was said too late settles nothing.
            assert node.statistics()["messages_unacknowledged"] == 19

    async def test_when_ack_wait_has_passed(self) -> None:
        async with (
            place() as (bus, _node, endpoint),
            consumer(endpoint, ack_wait=0.1) as slow,
            consumer(endpoint) as other,
        ):
            bus.twitter("job:new", 1)
            first = await slow.get()
            second = await other.get(timeout=5)
            assert (second.args, second.redelivered) == ((1,), True)
            assert not await first.ack()
            assert await second.ack()

    async def test_not_while_it_is_in_progress(self) -> None:
        async with place() as (bus, _node, endpoint), consumer(endpoint, ack_wait=2) as queue:
            bus.twitter("job:new", 1)
            message = await queue.get()
            for _ in range(6):
                with pytest.raises(Empty):
                    await queue.get(timeout=0.4)
                assert await message.in_progress()
            assert await message.ack()

    async def test_when_the_connection_is_closed(self) -> None:
        async with place() as (bus, _node, endpoint), consumer(endpoint) as living:
            bus.twitter("job:new", 1)
            async with consumer(endpoint) as closed:
                message = await closed.get()
            assert await reached(living) == [1]
            with pytest.raises(rpc.ServiceClosedError):
                await message.ack()

    async def test_what_nothing_is_left_for_is_counted(self) -> None:
        async with place() as (bus, node, endpoint):
            async with consumer(endpoint) as queue:
                for number in range(3):
                    bus.twitter("job:new", number)
                await queue.get()
                await (await queue.get()).nak(delay=60)
            assert node.statistics()["messages_dropped"] == 3

    async def test_a_message_that_waited_here_for_too_long(self) -> None:
        """What came as its `get` was cancelled is given on only if the node still waits for it."""
        async with place() as (bus, node, endpoint), consumer(endpoint, ack_wait=1) as queue:
            bus.twitter("job:new", 1)
            message = await queue.get()
            queue.put_back(message)
            await statistic(node, "messages_unacknowledged", 0)
            again = await queue.get()
            assert (again is message, again.redelivered) == (False, True)
            queue.put_back(again)
            assert await queue.get() is again


class TestTries:
    async def test_a_poison_job_ends(self, caplog: pytest.LogCaptureFixture) -> None:
        async with place() as (bus, node, endpoint), consumer(endpoint, tries=3) as queue:
            dead: list[Message] = []
            bus.regist_function("dead:*", dead.append)
            bus.twitter("job:new", 1, size=2)
            bus.twitter("job:new", 3)
            for _ in range(3):
                with pytest.raises(ZeroDivisionError):
                    async with queue.get() as message:
                        assert message.args == (1,)
                        raise ZeroDivisionError
            assert [(m.id, m.args, m.kwargs) for m in dead] == [("dead:job", (1,), {"size": 2})]
            assert dead[0].dead == {
                "identifier": "job:new",
                "queue": "job:*",
                "tries": 3,
                "error": "it was refused",
            }
            async with queue.get() as message:
                assert message.args == (3,)
            statistics = node.statistics()
            assert (statistics["messages_dead"], statistics["messages_dropped"]) == (1, 0)
            assert (
                "remote queue job:*: job:new was delivered 3 times, at last it was refused; "
                "it goes to dead:job (1 so far)" in caplog.text
            )

    async def test_whatever_becomes_of_its_consumers(self) -> None:
        async with place() as (bus, _node, endpoint):
            dead: asyncio.Queue[Message] = asyncio.Queue()
            bus.regist_function("dead:job", dead.put_nowait)
            async with consumer(endpoint, tries=3, ack_wait=0.1) as queue:
                bus.twitter("job:new", 1)
                async with consumer(endpoint, tries=3) as gone:
                    await gone.get()
                await queue.get()
                # ack_wait passes
                await queue.get()
                link_faults(endpoint).cut()
                assert (await dead.get()).args == (1,)

    async def test_a_queue_of_all_messages(self, caplog: pytest.LogCaptureFixture) -> None:
        """It has its own dead letters too, and they do not go round for ever."""
        async with place() as (bus, node, endpoint), Node(None, Bus()) as other:
            queue = await other.connect_via_queue("*:*", endpoint, ack_wait=60, tries=1)
            bus.twitter("job:new", 1)
            assert await (await queue.get()).nak()
            message = await queue.get()
            assert (message.id, message.args) == ("dead:all", (1,))
            assert await message.nak()
            assert (await queue.get_nowait()).id == "queue:dropped"
            with pytest.raises(Empty):
                await queue.get_nowait()
            assert node.statistics()["messages_dead"] == 2
            assert node.statistics()["messages_dropped"] == 1
            assert "dead:all was delivered 1 times, 1 dropped so far" in caplog.text

    async def test_without_ack_wait(self) -> None:
        """A consumer that dies with each receipt is one, too."""
        async with place() as (bus, node, endpoint):
            dead: asyncio.Queue[Message] = asyncio.Queue()
            bus.regist_function("dead:job", dead.put_nowait)
            async with await rpc.open_client(connect=endpoint) as client:
                token = await client.rpc.connect_via_queue("job:*", 60, False, None, 1)
                call = client.rpc.get(token, True, None)
                await statistic(node, "consumers_waiting", 1)
                # What confirms the receipt is lost.
                link_faults(endpoint).drop(towards="listener")
                bus.twitter("job:new", 1)
                assert (await call)["args"] == (1,)
                assert dead.empty()
                link_faults(endpoint).cut()
                assert (await dead.get()).args == (1,)

    @pytest.mark.parametrize("tries", [0, -1, 1.5, True, "3"])
    async def test_is_a_count(self, tries: Any) -> None:
        async with place() as (_, _, endpoint), Node(None, Bus()) as node:
            with pytest.raises(ValueError, match="tries must be a whole number"):
                await node.connect_via_queue("job:*", endpoint, ack_wait=1, tries=tries)
            async with await rpc.open_client(connect=endpoint) as client:
                with pytest.raises(ValueError, match="tries must be a whole number"):
                    await client.rpc.connect_via_queue("job:*", 1, False, 1, tries)


class TestBounds:
    async def test_get_waits_until_one_is_acknowledged(self) -> None:
        async with (
            place(max_unacknowledged=2) as (bus, node, endpoint),
            consumer(endpoint) as queue,
            consumer(endpoint) as other,
        ):
            for number in range(4):
                bus.twitter("job:new", number)
            first, _ = await queue.get(), await queue.get()
            with pytest.raises(Empty):
                await queue.get_nowait()
            with pytest.raises(Empty):
                await queue.get(timeout=0.05)
            waiting = asyncio.create_task(queue.get())
            await statistic(node, "consumers_waiting", 1)
            # It is no bound of the others.
            assert (await other.get()).args == (2,)
            assert await first.ack()
            assert (await waiting).args == (3,)

    async def test_that_wait_ends_with_the_connection(self) -> None:
        async with (
            place(max_unacknowledged=1) as (bus, node, endpoint),
            await rpc.open_client(connect=endpoint) as client,
        ):
            token = await client.rpc.connect_via_queue("job:*", 60, False, 60)
            bus.twitter("job:new", 0)
            await client.rpc.get(token)
            calls = [client.rpc.get(token, True, None) for _ in range(3)]
            await statistic(node, "consumers_waiting", 3)
            assert await client.rpc.close_connection(token) == "ok"
            assert [await call for call in calls] == ["invalid token"] * 3

    async def test_one_that_confirms_no_receipt(self) -> None:
        """A peer that reads answers and acknowledges none is bounded as well."""
        async with (
            place(max_unacknowledged=5) as (bus, node, endpoint),
            await rpc.open_client(connect=endpoint) as client,
        ):
            token = await client.rpc.connect_via_queue("job:*", 60)
            calls = [client.rpc.get(token, True, None) for _ in range(9)]
            await statistic(node, "consumers_waiting", 9)
            link_faults(endpoint).drop(1000, towards="listener")
            for number in range(9):
                bus.twitter("job:new", number)
            assert [(await call)["args"] for call in calls[:5]] == [(n,) for n in range(5)]
            await statistic(node, "messages_unacknowledged", 5)
            assert node.statistics()["messages_waiting"] == 4
            link_faults(endpoint).cut()
            await statistic(node, "messages_unacknowledged", 0)
            assert node.statistics()["messages_waiting"] == 9
            lost = await asyncio.gather(*calls[5:], return_exceptions=True)
            assert {type(error) for error in lost} == {rpc.ConnectionLostError}

    async def test_what_is_not_acknowledged_counts_in_the_queue(self) -> None:
        async with place(queue_size=3) as (bus, node, endpoint), consumer(endpoint) as queue:
            for number in range(3):
                bus.twitter("job:new", number)
            messages = [await queue.get(), await queue.get()]
            bus.twitter("job:new", 3)
            # The oldest of those that wait.
            assert node.statistics()["messages_dropped"] == 1
            assert (await queue.get()).args == (3,)
            bus.twitter("job:new", 4)
            # No other waits.
            assert node.statistics()["messages_dropped"] == 2
            assert await messages[0].nak()
            assert await reached(queue) == [0]

    @pytest.mark.parametrize("ack_wait", [0, -1, float("nan"), "1", True, [1], 10**400])
    async def test_ack_wait_is_a_number_of_seconds(self, ack_wait: Any) -> None:
        async with place() as (_, _, endpoint):
            async with await rpc.open_client(connect=endpoint) as client:
                connect = client.rpc.connect_via_queue
                if ack_wait == 10**400:
                    # Cut to a day.
                    assert await connect("job:*", 1, False, ack_wait)
                    return
                with pytest.raises(ValueError, match="ack_wait must be a number of seconds"):
                    await connect("job:*", 1, False, ack_wait)
            async with Node(None, Bus()) as node:
                with pytest.raises(ValueError, match="ack_wait must be a number of seconds"):
                    await node.connect_via_queue("job:*", endpoint, ack_wait=ack_wait)


class TestOtherPeers:
    async def test_the_functions(self) -> None:
        async with (
            place() as (bus, _, endpoint),
            await rpc.open_client(connect=endpoint) as client,
        ):
            call = client.rpc
            token = await call.connect_via_queue("job:*", 60, False, 60, 2)
            bus.twitter("job:new", 1)
            answer = await call.get(token)
            number = answer.pop("number")
            assert answer == {
                "id": "job:new",
                "args": (1,),
                "kwargs": {},
                "redelivered": False,
            }
            assert await call.in_progress(token, number) == "ok"
            assert await call.refuse(token, number, 0.0) == "ok"
            answer = await call.get(token)
            assert answer["redelivered"] is True
            # Each delivery has a number of its own.
            assert answer["number"] != number
            assert await call.acknowledge(token, number) == "unknown number"
            # As a peer that speaks JSON may have it.
            assert await call.acknowledge(token, float(answer["number"])) == "ok"
            assert await call.refuse(token, answer["number"]) == "unknown number"
            assert await call.in_progress("none", 1) == "invalid token"
            oneway = await call.connect_oneway(60)
            for name in ("acknowledge", "refuse", "in_progress"):
                assert await client.call(name, oneway, 1) == "invalid token"
                for odd in (None, "1", float("nan"), float("inf"), [1], 1 << 70):
                    assert await client.call(name, token, odd) == "unknown number"

    async def test_over_http(self) -> None:
        """Each request is a connection of its own, whose end says nothing."""
        pytest.importorskip("aiohttp")
        async with place() as (bus, node, _), Bridge(node) as bridge, Node(None, Bus()) as other:
            url = await bridge.serve_http("127.0.0.1", 0)
            queue = await other.connect_via_queue("job:*", url, shared=True, ack_wait=60)
            bus.twitter("job:new", 1)
            message = await queue.get()
            with pytest.raises(Empty):
                await queue.get(timeout=0.1)
            assert await message.in_progress()
            assert await message.nak()
            # Here the time alone counts.
            hasty = await other.connect_via_queue("job:*", url, shared=True, ack_wait=0.1)
            assert (await hasty.get()).redelivered
            async with queue.get(timeout=10) as message:
                assert (message.args, message.redelivered) == ((1,), True)
            assert node.statistics()["messages_unacknowledged"] == 0
            assert await reached(queue) == []

    async def test_a_get_without_an_answer_takes_nothing(self) -> None:
        async with (
            place() as (bus, node, endpoint),
            await rpc.open_client(connect=endpoint) as client,
        ):
            token = await client.rpc.connect_via_queue("job:*", 60)
            bus.twitter("job:new", 1)
            client.notify.get(token)
            client.notify.get(token, True, None)
            client.notify.get_nowait(token)
            assert (await client.rpc.get(token))["args"] == (1,)
            assert node.statistics()["messages_dropped"] == 0

    async def test_a_queue_without_ack_wait_numbers_nothing(self) -> None:
        async with (
            place() as (bus, _, endpoint),
            await rpc.open_client(connect=endpoint) as client,
        ):
            token = await client.rpc.connect_via_queue("job:*", 60)
            bus.twitter("job:new", 1)
            assert "number" not in await client.rpc.get(token)

    async def test_a_node_that_does_not_know_it(self) -> None:
        class Old(ExportedFunctions):
            @rpc.method
            def connect_via_queue(  # type: ignore[override]
                self, identifier: str, ttl: float = 1, shared: bool = False
            ) -> str:
                return ""

        endpoint = f"mem://consumer-{next(_numbers)}"
        async with await rpc.start_server(Old(Bus()), bind=endpoint), Node(None, Bus()) as node:
            with pytest.raises(rpc.ParametersError):
                await node.connect_via_queue("job:*", endpoint, ack_wait=1)


class TestThreads:
    async def test_with(self) -> None:
        bus = Bus()
        async with Node("tcp://127.0.0.1:0", bus) as node:
            endpoint = node.endpoints[0]

            def work() -> list[Any]:
                seen: list[Any] = []
                with SyncNode(Bus()) as other:
                    other.connect_via_queue(endpoint, "job:*", ack_wait=60, tries=5)
                    bus.twitter("job:new", 1)
                    try:
                        with other.get() as message:
                            seen.append((message.args, message.redelivered))
                            raise ZeroDivisionError
                    except ZeroDivisionError:
                        pass
                    with other.get() as message:
                        seen.append((message.args, message.redelivered))
                        seen.append(message.in_progress())
                    seen.append(message.ack())
                    bus.twitter("job:new", 2)
                    seen.append(other.get().nak(delay=0.01))
                    seen.append(other.get().ack())
                return seen

            assert await asyncio.to_thread(work) == [
                ((1,), False),
                ((1,), True),
                True,
                False,
                True,
                True,
            ]

    async def test_without_ack_wait(self) -> None:
        bus = Bus()
        async with Node("tcp://127.0.0.1:0", bus) as node:
            endpoint = node.endpoints[0]

            def work() -> Any:
                with SyncNode(Bus()) as other:
                    other.connect_via_queue(endpoint, "job:*")
                    bus.twitter("job:new", 1)
                    with pytest.raises(ValueError, match="ack_wait"), other.get():
                        raise AssertionError
                    return other.get().args

            assert await asyncio.to_thread(work) == (1,)


async def test_many_of_one_consumer_go_back_at_once() -> None:
    async with (
        place(max_unacknowledged=2_000) as (bus, node, endpoint),
        consumer(endpoint) as queue,
    ):
        for number in range(2_000):
            bus.twitter("job:new", number)
        await asyncio.gather(*(queue.get() for _ in range(2_000)))
        loop = asyncio.get_running_loop()
        link_faults(endpoint).cut()
        began = loop.time()
        await statistic(node, "messages_unacknowledged", 0)
        assert loop.time() - began < 3
        assert node.statistics()["messages_waiting"] == 2_000
