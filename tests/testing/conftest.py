"""Lets the tests of this folder import the helpers of the transports' tests."""

import sys
from pathlib import Path

#: They are run as projects of their own, by `test_projects.py`.
collect_ignore = ["projects"]

sys.path.insert(0, str(Path(__file__).parents[1] / "rpc" / "transport"))
