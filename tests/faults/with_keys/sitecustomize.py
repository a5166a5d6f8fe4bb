"""Keys for every server and client of a test, here and in the programs that it starts.

`install` has `rpc.start_server`, `rpc.open_client` and `rpc.SyncClient` use keys where they are
asked for none. The name is the one that Python imports at its start: with this folder in
PYTHONPATH, and the keys in the environment, a program need not know of them.
"""

import functools
import os
from typing import Any

from berrymq_rpc import rpc

SERVER, CLIENT = "FAULTS_SERVER_KEY", "FAULTS_CLIENT_KEY"


def install(set_attribute: Any = setattr) -> None:
    """Put the keys of the environment in place.

    Args:
        set_attribute: as the built-in function; a test's takes it back.
    """
    server, client = rpc.KeyPair.from_environment(SERVER), rpc.KeyPair.from_environment(CLIENT)
    serving = rpc.CurveServer(server, {client.public})
    calling = rpc.CurveClient(client, server=server.public)
    for name, security in (
        ("start_server", serving),
        ("open_client", calling),
        ("SyncClient", calling),
    ):
        set_attribute(rpc, name, with_security(getattr(rpc, name), security))


def with_security(function: Any, security: rpc.CurveServer | rpc.CurveClient) -> Any:
    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        endpoints = f"{options.get('connect')} {options.get('bind')}"
        # Within one process there is nobody to keep out.
        if "mem://" not in endpoints:
            options.setdefault("security", security)
        return function(*args, **options)

    return called


if SERVER in os.environ and __name__ == "sitecustomize":
    install()
