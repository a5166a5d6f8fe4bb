"""The table of records: numbers, names, and the table at the module's head."""

import re

from berrymq_rpc.rpc.wire import record

NUMBERED = {name: number for name, number in vars(record).items() if type(number) is int}


def test_numbers_are_those_of_the_wire() -> None:
    # They are a promise to clients in other languages: none may ever change.
    assert NUMBERED == {
        "HELLO": 0,
        "CALL": 1,
        "NOTIFY": 2,
        "ACCEPTED": 3,
        "RESULT": 4,
        "ERROR": 5,
        "CANCEL": 6,
        "ITEM": 7,
        "CREDIT": 8,
        "ACKNOWLEDGE": 9,
        "PING": 10,
        "PONG": 11,
        "GOODBYE": 12,
        "END": 13,
        "CLOSED": 14,
    }


def test_table_at_the_head_is_complete() -> None:
    rows = re.findall(r"^(\d+) +([A-Z]+) ", record.__doc__ or "", re.MULTILINE)
    assert {name: int(number) for number, name in rows} == NUMBERED
    assert [int(number) for number, _ in rows] == sorted(NUMBERED.values())


def test_everything_is_public() -> None:
    assert set(record.__all__) == {*NUMBERED, "NO_KWARGS", "InboundEvent"}


def test_no_kwargs_are_none() -> None:
    assert record.NO_KWARGS == {}
