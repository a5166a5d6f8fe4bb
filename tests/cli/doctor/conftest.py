"""What the tests of the doctor share."""

from collections.abc import AsyncIterator

from berrymq_rpc.cli.doctor.check import Check

#: Seconds for each check; those that have to wait for it take so long.
SHORT = 0.4
#: The same where other answers come.
MEDIUM = 1.5
#: The same where an answer has to come.
LONG = 5.0


async def collected(checks: AsyncIterator[Check]) -> dict[str, Check]:
    """The checks by their names; the last of each."""
    return {check.name: check async for check in checks}


def statuses(checks: dict[str, Check]) -> dict[str, str]:
    return {name: str(check.status) for name, check in checks.items()}
