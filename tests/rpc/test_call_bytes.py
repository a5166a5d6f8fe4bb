"""`CallBytes`, the bounds on the bytes of calls that wait."""

from dataclasses import dataclass

import pytest

from berrymq_rpc.errors import OverloadedError
from berrymq_rpc.rpc import Limits
from berrymq_rpc.rpc.call_bytes import MESSAGE, CallBytes, Room

LIMITS = Limits(
    max_message=100,
    max_frame=100,
    max_queued_bytes=5000,
    max_queued_call_bytes=10_000,
    max_all_queued_call_bytes=15_000,
)


@dataclass
class OfAll:
    limits: Limits = LIMITS
    queued_bytes: int = 0


def test_a_peer_has_room_up_to_its_bound() -> None:
    of_all = OfAll()
    peer = CallBytes(of_all)
    peer.hold(6000)
    assert peer.reserve(3000) is Room.SERVED
    assert (peer.has_room(1000), peer.has_room(1001)) == (True, False)
    assert of_all.queued_bytes == 9000
    peer.hold(-6000)
    peer.release(3000)
    assert of_all.queued_bytes == 0
    assert peer.has_room(10_000)


def test_peers_have_room_up_to_the_bound_of_all() -> None:
    of_all = OfAll()
    first, second = CallBytes(of_all), CallBytes(of_all)
    first.hold(9000)
    assert (second.has_room(6000), second.has_room(6001)) == (True, False)
    second.hold(6000)
    assert not first.has_room(1)


def test_a_message_that_may_have_answers_waits_beyond_the_bound() -> None:
    of_all = OfAll()
    peer = CallBytes(of_all)
    assert peer.reserve(10_001) is Room.SERVED
    assert peer.reserve(10_000) is Room.REFUSED
    # More than twice the bound and the largest frame waits to be read.
    assert peer.reserve(LIMITS.largest_frame) is Room.REFUSED
    assert peer.reserve(1) is Room.NONE
    assert of_all.queued_bytes == 20_001 + LIMITS.largest_frame


def test_no_message_of_any_peer_is_taken_far_beyond_the_bound_of_all() -> None:
    of_all = OfAll(queued_bytes=30_000 + LIMITS.largest_frame)
    peer = CallBytes(of_all)
    assert peer.reserve(1) is Room.REFUSED
    assert peer.reserve(1) is Room.NONE


def test_what_a_lost_peer_had_is_released() -> None:
    of_all = OfAll(queued_bytes=7)
    peer = CallBytes(of_all)
    peer.hold(1000)
    peer.reserve(2000)
    peer.clear()
    assert of_all.queued_bytes == 2007
    peer.release_all()
    assert of_all.queued_bytes == 7
    peer.clear()
    peer.release_all()
    assert of_all.queued_bytes == 7


@pytest.mark.parametrize(
    ("queued_bytes", "is_congested", "text"),
    [
        (0, False, "max_queued_call_bytes=10,000 bytes of calls wait for their turn"),
        (
            0,
            True,
            "max_queued_call_bytes=10,000 bytes of calls wait for this peer to read its answers, "
            "over max_queued_bytes=5,000 bytes of them",
        ),
        (
            15_000 - MESSAGE,
            False,
            "max_queued_call_bytes=10,000 bytes of calls wait for their turn",
        ),
        (
            15_001 - MESSAGE,
            True,
            "max_all_queued_call_bytes=15,000 bytes of calls of all peers wait",
        ),
    ],
)
def test_the_error_names_the_bound(queued_bytes: int, is_congested: bool, text: str) -> None:
    error = CallBytes(OfAll(queued_bytes=queued_bytes)).no_room(is_congested=is_congested)
    assert type(error) is OverloadedError
    assert error.args == (text,)
