"""What JetStream is told of messages that share a batch."""

import pytest

pytest.importorskip("nats", reason="NATS needs nats-py")

from berrymq_rpc.exchange.durable.delivered import Share, nak

ACK, TERM, NAK, IN_PROGRESS = b"+ACK", b"+TERM why", b"-NAK", b"+WPI"


def test_it_is_acknowledged_when_all_are_settled() -> None:
    share = Share((0, 2, 5))
    assert share.word(2, ACK) is None
    assert share.word(2, ACK) is None
    assert share.word(0, TERM) is None
    assert share.word(0, IN_PROGRESS) == IN_PROGRESS
    assert share.word(5, ACK) == ACK
    assert share.word(5, ACK) is None


def test_it_comes_again_whole_when_one_is_refused() -> None:
    share = Share(range(3))
    assert share.word(0, ACK) is None
    assert share.word(1, nak(1.5)) == b'-NAK {"delay": 1500000000}'
    assert share.word(2, NAK) is None
    assert share.word(2, ACK) is None
