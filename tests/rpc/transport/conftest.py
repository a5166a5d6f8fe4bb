"""Lets the tests of this folder import its helpers: `memory_peers`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# The checks show what they compared, as tests do.
pytest.register_assert_rewrite("berrymq_rpc.testing.conformance")
