"""``python -m berrymq_rpc``: the ``berrymq`` command."""

from .cli import main

main()
