"""Dead letters: what is given up, when, with what it is kept, and what is never given up twice."""

import asyncio
import logging
from collections.abc import Callable

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from clustered import PATIENCE, clustered, emptied, take

from berrymq_rpc.bus import AsyncQueue, Empty, Message
from berrymq_rpc.errors import TooLargeError
from berrymq_rpc.exchange.durable import report, streams
from berrymq_rpc.testing.nats_server import NatsServer


async def test_after_its_last_try_it_is_dead_at_once(
    nats_server: NatsServer, namespace: str
) -> None:
    async with clustered(nats_server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", tries=2, bus=bus)
        letters = AsyncQueue("dead:workers", durable="letters", bus=bus)
        for each in (queue, letters):
            await each.ready()
        await bus.publish("job:new", 1)
        await (await queue.get(timeout=PATIENCE)).nak()
        with pytest.raises(LookupError):
            async with queue.get(timeout=PATIENCE) as message:
                raise LookupError("é\r\nno such job")
        assert message.tries == 2
        # Without another call of `queue.get`, which would see it come again.
        async with letters.get(timeout=PATIENCE) as letter:
            assert letter.args == (1,)
            assert letter.dead == {
                "identifier": "job:new",
                "queue": "workers",
                "tries": 2,
                "error": repr(LookupError("é\r\nno such job")),
            }
        await emptied(queue)


async def test_a_message_that_ends_each_consumer(nats_server: NatsServer, namespace: str) -> None:
    async with clustered(nats_server, namespace) as bus:
        letters = AsyncQueue("dead:*", durable="letters", bus=bus)
        options = {"durable": "workers", "tries": 2, "ack_wait": 0.3}
        queue = AsyncQueue("job:*", bus=bus, **options)
        for each in (queue, letters):
            await each.ready()
        await bus.publish("job:poison", 1)
        await bus.publish("job:good", 2)
        for tries in (1, 2):
            message = await queue.get(timeout=PATIENCE)
            if message.args == (2,):
                await message.ack()
                message = await queue.get(timeout=PATIENCE)
            # Nothing is said of it, as by a process that was killed.
            assert (message.args, message.tries) == ((1,), tries)
        with pytest.raises(Empty):
            while True:
                message = await queue.get(timeout=1.0)
                assert message.args == (2,)
                await message.ack()
        async with letters.get(timeout=PATIENCE) as letter:
            assert letter.args == (1,)
            assert (letter.dead["tries"], letter.dead["error"]) == (2, None)


async def test_a_dead_letter_whose_work_fails(
    nats_server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with clustered(nats_server, namespace) as bus:
        dead: list[Message] = []
        bus.regist_function("dead:*", dead.append)
        queue = AsyncQueue("job:*", durable="workers", tries=1, bus=bus)
        letters = AsyncQueue("dead:*", durable="letters", tries=1, bus=bus)
        for each in (queue, letters):
            await each.ready()
        await bus.publish("job:new", 1)
        with (
            caplog.at_level(logging.WARNING, logger="berrymq_rpc.exchange"),
            pytest.raises(LookupError),
        ):
            async with queue.get(timeout=PATIENCE):
                raise LookupError
        with pytest.raises(ValueError, match="cannot file it"):
            async with letters.get(timeout=PATIENCE):
                raise ValueError("cannot file it")
        # It is no letter about a letter, which the same queue would get again without end.
        with pytest.raises(Empty):
            await letters.get(timeout=0.3)
        assert [m.id for m in dead] == ["dead:workers"]
        await emptied(letters)
        assert "cannot file it" in caplog.text
        # And it is where it was.
        again = AsyncQueue("dead:workers", durable="again", bus=bus)
        assert await take(again, 1) == [1]


async def test_a_message_that_is_nearly_too_large(
    start_nats: Callable[..., NatsServer], namespace: str
) -> None:
    server = start_nats("max_payload: 20000", jetstream=True)
    async with clustered(server, namespace) as bus:
        queue = AsyncQueue("job:*", durable="workers", tries=1, bus=bus)
        letters = AsyncQueue("dead:workers", durable="letters", bus=bus)
        for each in (queue, letters):
            await each.ready()
        sizes = []
        for size in range(20_000, 0, -20):
            try:
                await bus.publish("job:new", b"x" * size)
            except TooLargeError:
                continue
            sizes.append(size)
            if len(sizes) == 40:
                break
        for size in sizes:
            with pytest.raises(LookupError):
                async with queue.get(timeout=PATIENCE) as message:
                    assert len(message.args[0]) == size
                    raise LookupError("y" * 300)
        assert sorted(map(len, await take(letters, len(sizes)))) == sorted(sizes)


async def test_it_is_told_before_dead_letters_are_dropped(
    nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "DEAD_BYTES", 20_000)
    monkeypatch.setattr(report, "LOOK_PAUSE", 0.01)
    async with clustered(nats_server, namespace) as bus:
        events: list[Message] = []
        bus.regist_function("queue:filling", events.append)
        queue = AsyncQueue("job:*", durable="workers", tries=1, bus=bus)
        await queue.ready()
        for number in range(8):
            await bus.publish("job:new", number, b"x" * 2000)
            with pytest.raises(LookupError):
                async with queue.get(timeout=PATIENCE):
                    raise LookupError
        async with asyncio.timeout(PATIENCE):
            while not events:
                await bus.publish("job:new")
                async with queue.get(timeout=PATIENCE):
                    pass
        (event,) = events
        assert event.kwargs["stream"] == f"BERRYMQ_{namespace}_DEAD"
        assert (event.kwargs["queue"], event.kwargs["max_bytes"]) == (None, 20_000)
        assert event.kwargs["waiting"] >= 7
