"""What the tests of the pages for those who come from another library share."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from berrymq_rpc import rpc

#: Seconds that a call may take, unless its test says otherwise.
SECONDS = 10

NUMBERS = count()

PAGES = Path(__file__).resolve().parents[2] / "docs" / "migrate"


def rows(page: str) -> set[str]:
    """What stands in the first column of a page's table of names."""
    table = (PAGES / page).read_text(encoding="utf-8").partition(".. list-table:: ")[2]
    table = re.split(r"\n\n(?=\S)", table.partition("\n\n")[2])[0]
    _, *found = re.split(r"\n? +\* - ", table)
    return {" ".join(re.split(r"\n +- ", row)[0].split()) for row in found[1:]}


@asynccontextmanager
async def pair(
    served: Any, /, server: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[rpc.Client]:
    """A client of a server, within this process."""
    address = f"mem://migrate-{next(NUMBERS)}"
    async with (
        await rpc.start_server(served, bind=address, **(server or {})),
        await rpc.open_client(connect=address, **{"timeout": SECONDS, **options}) as client,
    ):
        yield client
