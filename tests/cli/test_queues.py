"""``berrymq queues``: lists, deletes, and sends dead letters again."""

import asyncio
import json
from typing import Any

import pytest

from berrymq_rpc.bus import AsyncQueue, Bus
from berrymq_rpc.exchange import Node
from berrymq_rpc.testing.nats_server import NatsServer

pytest.importorskip("nats", reason="NATS needs nats-py")


async def prepare(server: NatsServer, namespace: str) -> None:
    """Two queues; one message waits, and one is a dead letter."""
    bus = Bus()
    async with Node(None, bus, cluster=server.url, namespace=namespace):
        workers = AsyncQueue("job:*", durable="workers", tries=1, bus=bus)
        await workers.ready()
        await AsyncQueue("other:*", durable="others", bus=bus).ready()
        letters = AsyncQueue("dead:workers", durable="letters", bus=bus)
        await letters.ready()
        await bus.publish("job:new", 1)
        message: Any = await workers.get(timeout=10.0)
        await message.nak()
        getting = asyncio.create_task(workers.get())
        letter: Any = await letters.get(timeout=10.0)
        await letter.nak(delay=60.0)
        getting.cancel()
        await asyncio.wait((getting,))
        workers.close()
        await bus.publish("other:new", 2)


def test_queues(nats_server: NatsServer, berrymq) -> None:
    asyncio.run(prepare(nats_server, "cli-queues"))
    where = (nats_server.url, "--namespace", "cli-queues")
    result = berrymq("queues", *where)
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "letters  dead:workers  0 waiting  1 being worked on  0 consumers",
        "others  other:*  1 waiting  0 being worked on  0 consumers",
        "workers  job:*  0 waiting  0 being worked on  0 consumers",
    ]
    result = berrymq("queues", *where, "--replay", "workers")
    assert (result.returncode, result.stdout) == (0, "1 dead letter of workers sent again\n")
    result = berrymq("queues", *where, "--delete", "others")
    assert (result.returncode, result.stdout) == (0, "others deleted\n")
    result = berrymq("queues", *where, "--delete", "others")
    assert (result.returncode, result.stdout) == (1, "")
    result = berrymq("queues", *where, "--json")
    listed = list(map(json.loads, result.stdout.splitlines()))
    assert [each["name"] for each in listed] == ["letters", "workers"]
    assert listed[1]["waiting"] == 1


def test_no_queues(nats_server: NatsServer, berrymq) -> None:
    result = berrymq("queues", nats_server.url, "--namespace", "cli-none")
    assert (result.returncode, result.stdout) == (0, "")


def test_jetstream_is_off(start_nats, berrymq) -> None:
    result = berrymq("queues", start_nats().url)
    assert result.returncode == 1
    assert "-js" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["tcp://127.0.0.1:1"], ["nats://"], ["nats://h", "--namespace", "a b"]]
)
def test_wrong_command_lines(berrymq, arguments: list[str]) -> None:
    assert berrymq("queues", *arguments).returncode == 2


def test_no_server(berrymq) -> None:
    result = berrymq("queues", "nats://user:secret@127.0.0.1:1", "--wait", "0.3")
    assert result.returncode == 3
    assert "secret" not in result.stderr
