"""An exception that has to come in time."""

import asyncio
import time

import pytest

from berrymq_rpc.testing import RaisesWithin


def within(expected: type[Exception], seconds: float, match: str | None = None) -> RaisesWithin:
    return RaisesWithin(expected, seconds, match)


def test_it_came() -> None:
    with within(ValueError, 1, "te.t") as caught:
        raise ValueError("text")
    assert str(caught.value) == "text"
    assert 0 <= caught.elapsed < 1


def test_several_classes() -> None:
    with RaisesWithin((KeyError, ValueError), 1, None):
        raise ValueError


def test_nothing_came() -> None:
    with (
        pytest.raises(AssertionError, match=r"^no ValueError was raised: the block ended after"),
        within(ValueError, 1),
    ):
        pass


def test_another_one_passes() -> None:
    with pytest.raises(KeyError), within(ValueError, 1):
        raise KeyError


def test_another_text() -> None:
    with (
        pytest.raises(AssertionError, match="does not match 'other': text"),
        within(ValueError, 1, "other"),
    ):
        raise ValueError("text")


def test_too_late_in_a_plain_test() -> None:
    with (
        pytest.raises(AssertionError, match=r"after 0\.0\d\d s, and not within 0\.01 s"),
        within(ValueError, 0.01),
    ):
        time.sleep(0.02)
        raise ValueError


@pytest.mark.parametrize("expected", [5, int, (), (ValueError, 5)])
def test_bad_use(expected: object) -> None:
    with pytest.raises(TypeError, match="class of exceptions"):
        RaisesWithin(expected, 1, None)  # type: ignore[arg-type]


async def test_what_runs_longer_is_cancelled() -> None:
    ended = []
    with (
        pytest.raises(AssertionError, match=r"within 0\.01 s: what ran was cancelled"),
        within(ValueError, 0.01),
    ):
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(True)
    assert ended
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0.02)


async def test_the_timer_ends_with_the_block() -> None:
    with within(ValueError, 0.01):
        raise ValueError
    await asyncio.sleep(0.02)


async def test_what_else_cancels_goes_on() -> None:
    async def wait() -> None:
        with within(ValueError, 0.01):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                # The time was over, and now somebody else cancels it too.
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                raise

    task = asyncio.create_task(wait())
    await asyncio.wait([task])
    assert task.cancelled()


async def test_cancelled_from_outside() -> None:
    async def wait() -> None:
        with within(ValueError, 10):
            await asyncio.sleep(100)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_it_came_while_it_was_cancelled() -> None:
    with (
        pytest.raises(AssertionError, match=r"ValueError was raised after .* not within 0\.01 s"),
        within(ValueError, 0.01),
    ):
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise ValueError from None
