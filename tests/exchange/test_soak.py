"""Two nodes under load for some minutes: nothing grows. Run by hand, for as long as you like::

SOAK_SECONDS=180 python -m pytest tests/exchange/test_soak.py -s
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))

#: What each process may grow by after the first quarter of the time.
MEMORY = 8 << 20

#: A node that another connects to in all styles, and that sends, answers and takes from a queue.
#: It prints a line of figures for each line that it reads.
NODE = """
import asyncio, gc, json, os, sys
from berrymq_rpc import Bus, Empty, Node

bus = Bus()
heard = sent = got = answered = reconnected = 0

def hear(message):
    global heard
    heard += message.origin is not None

def answer(message):
    return message.args[0] * 2

def count_answer(message):
    global answered
    answered += 1

bus.regist_function("load:*", hear)
bus.regist_function("question:*", answer)
bus.regist_function("_answer:*", count_answer)

async def send():
    global sent
    while True:
        for number in range(100):
            bus.twitter("load:number", number, text="x" * 50)
        bus.twitter("load:blob", bytes(20_000))
        bus.talk("question:asked", "_answer:given", sent)
        sent += 102
        await asyncio.sleep(0.1)

async def take(node, endpoint):
    global got
    async with await node.connect_via_queue("load:number", endpoint) as queue:
        while True:
            try:
                await queue.get(timeout=1)
                got += 1
            except Empty:
                pass

async def come_and_go(node, endpoint):
    global reconnected
    while True:
        oneway = await node.connect_oneway(endpoint)
        await oneway.send_message("load:oneway", reconnected)
        await oneway.close()
        reconnected += 1
        await asyncio.sleep(0.05)

async def main():
    loop = asyncio.get_running_loop()
    async with Node("tcp://127.0.0.1:0", bus) as node:
        say({"endpoint": node.endpoints[0]})
        endpoint = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
        work = [asyncio.create_task(send())]
        if endpoint:
            await node.interconnect(endpoint)
            for job in (take(node, endpoint), take(node, endpoint), come_and_go(node, endpoint)):
                work.append(asyncio.create_task(job))
        say("works")
        while await loop.run_in_executor(None, sys.stdin.readline):
            for job in work:
                if job.done():
                    job.result()
            gc.collect()
            with open("/proc/self/statm") as file:
                memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            say({
                "memory": memory, "tasks": len(asyncio.all_tasks()),
                "files": len(os.listdir("/proc/self/fd")), "heard": heard, "sent": sent,
                "got": got, "answered": answered, "connections": reconnected,
            })
        for job in work:
            job.cancel()

def say(value):
    print(json.dumps(value), flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.nodebug
@pytest.mark.timeout(2 * SECONDS + 120)
@pytest.mark.skipif(not SECONDS, reason="it takes minutes: set SOAK_SECONDS")
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="it reads /proc")
async def test_nothing_grows() -> None:
    nodes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", NODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]

    async def ask(node: Any, value: Any = None) -> Any:
        node.stdin.write(json.dumps(value) + "\n")
        node.stdin.flush()
        return await hear(node)

    async def hear(node: Any) -> Any:
        line = await asyncio.to_thread(node.stdout.readline)
        assert line, "a node has ended"
        return json.loads(line)

    try:
        endpoint = (await hear(nodes[0]))["endpoint"]
        await hear(nodes[1])
        await ask(nodes[0], "")
        await ask(nodes[1], endpoint)
        await asyncio.sleep(SECONDS / 4)
        first = [await ask(node) for node in nodes]
        await asyncio.sleep(SECONDS * 3 / 4)
        last = [await ask(node) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
            node.communicate()
    for before, after in zip(first, last, strict=True):
        print(f"\nafter {SECONDS / 4:g} s: {before}\nafter {SECONDS:g} s: {after}")
        assert after["memory"] - before["memory"] < MEMORY
        assert after["tasks"] <= before["tasks"] + 5
        assert after["files"] <= before["files"] + 5
        assert after["heard"] > before["heard"]
        assert after["answered"] > before["answered"]
    # What the other node sent is what was heard here, but for what is under way.
    assert last[0]["heard"] > 0.9 * last[1]["sent"]
    assert last[1]["got"] > 0.9 * first[0]["sent"]
