"""One peer sends what it likes, over each way; a client beside it waits for a moment at most."""

from pathlib import Path
from typing import Any

import pytest

#: Seconds, on a machine that is busy with other things. On an idle one it is 0.1.
LONGEST = 1.0

#: Seconds for texts and messages of other dialects over 1 MiB, likewise: there it is 1.
LONGEST_PARSE = 3.0

#: Bytes of log that an attack may make.
MAX_LOG = 100_000


@pytest.mark.slow
@pytest.mark.nodebug
@pytest.mark.timeout(150)
async def test_others_wait_for_a_moment(attacks: Any, attack: str, tmp_path: Path) -> None:
    async with attacks.victim(tmp_path / "log") as server:
        longest = await server.longest_wait(attacks.ATTACKS[attack])
        assert longest < (LONGEST_PARSE if "4,000,000" in attack else LONGEST)
        assert server.logged < MAX_LOG
