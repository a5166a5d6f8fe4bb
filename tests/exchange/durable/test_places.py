"""So many at a time, in turn."""

import asyncio

from berrymq_rpc.exchange.durable.places import Places


async def waiting(places: Places, count: int) -> list[asyncio.Task[None]]:
    """Tasks that wait for a place, in their order."""
    tasks = [asyncio.create_task(places.take()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_so_many_have_a_place_and_the_first_who_waits_gets_the_next() -> None:
    places = Places(2)
    assert places.take_now()
    await places.take()
    assert not places.take_now()
    first, second = await waiting(places, 2)
    places.release()
    # It is the first's, before its task has run.
    assert not places.take_now()
    await first
    assert not second.done()
    places.release()
    await second
    places.release()
    places.release()
    assert places.take_now()
    assert places.take_now()
    assert not places.take_now()


async def test_who_is_cancelled_takes_no_place() -> None:
    places = Places(1)
    assert places.take_now()
    first, second, third = await waiting(places, 3)
    first.cancel()
    await asyncio.wait({first})
    assert first.cancelled()
    places.release()
    # It has just been given the place, and passes it on.
    second.cancel()
    await asyncio.wait({second, third})
    assert second.cancelled()
    assert third.exception() is None
    assert not places.take_now()
    places.release()
    assert places.take_now()


async def test_all_of_many_that_wait_are_served() -> None:
    places = Places(10)
    served: list[int] = []

    async def work(number: int) -> None:
        await places.take()
        served.append(number)
        await asyncio.sleep(0)
        places.release()

    await asyncio.gather(*map(work, range(5000)))
    assert served == list(range(5000))
