"""A network on which services can be found."""

import secrets

import pytest

from tests.multicast import addresses_with_multicast


@pytest.fixture(scope="session")
def address() -> str:
    """An address of this host that others might reach, where multicast works."""
    found = addresses_with_multicast()
    if not found:
        pytest.skip("this host has no network with multicast, or zeroconf is not installed")
    return found[0]


@pytest.fixture
def name() -> str:
    """A service that no other test has."""
    return f"test-{secrets.token_hex(4)}"
