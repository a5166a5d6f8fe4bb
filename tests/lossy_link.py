"""A network link between two network namespaces, in user space: it delays and loses packets.

    python lossy_link.py NAME NAME DELAY LOSS

It makes two TUN interfaces of these names, which the caller moves into the namespaces, and carries
each packet from one to the other after DELAY seconds; a part LOSS of them vanishes. Each line of
stdin is "cut" or "mend", and is answered by the same line. For hosts whose kernel has no netem.
"""

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time
from itertools import count

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000

#: Bytes of a packet, and packets under way in one direction; more are lost, as at any router.
PACKET, ROOM = 65_536, 2_000


def interface(name: str) -> int:
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return file


def carry(ends: tuple[int, int], delay: float, loss: float) -> None:
    chance = random.Random(1)
    under_way: list[tuple[float, int, int, bytes]] = []
    numbers = count()
    is_cut = False
    while True:
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, target, packet = heapq.heappop(under_way)
            if not is_cut:
                # Where the interface is not up, or its queue is full, it is lost.
                with contextlib.suppress(OSError):
                    os.write(target, packet)
        pause = under_way[0][0] - now if under_way else None
        for file in select.select([0, *ends], [], [], pause)[0]:
            if file == 0:
                line = os.read(0, 100).decode().strip()
                if not line:
                    return
                is_cut = line == "cut"
                print(line, flush=True)
                continue
            packet = os.read(file, PACKET)
            if not is_cut and chance.random() >= loss and len(under_way) < ROOM:
                target = ends[1] if file == ends[0] else ends[0]
                heapq.heappush(under_way, (time.monotonic() + delay, next(numbers), target, packet))


if __name__ == "__main__":
    one, other, delay, loss = sys.argv[1:]
    made = interface(one), interface(other)
    print("ready", flush=True)
    carry(made, float(delay), float(loss))
