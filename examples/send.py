"""Send one message to a node.

    python examples/send.py ENDPOINT IDENTIFIER [ARGUMENT | name=value]...

Arguments and values are read as JSON; what is not JSON is text:

    python examples/send.py tcp://127.0.0.1:5555 job:done report 3 '{"ok": true}' seconds=1.5
"""

import asyncio
import json
import sys
from typing import Any

from berrymq_rpc import Error, Identifier, Node
from berrymq_rpc.rpc import ConnectionLostError, NotFoundError

# Seconds for the node to appear. One that runs answers in milliseconds.
CONNECT_TIMEOUT = 2.0


def parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


async def send(endpoint: str, identifier: str, args: list[Any], kwargs: dict[str, Any]) -> str:
    async with (
        Node(connect_timeout=CONNECT_TIMEOUT) as node,
        await node.connect_oneway(endpoint) as connection,
    ):
        return await connection.send_message(identifier, *args, **kwargs)


def main(arguments: list[str]) -> str | int:
    """Send the message; return the exit status, or what went wrong."""
    if len(arguments) < 2:
        return __doc__ or ""
    endpoint, identifier, *rest = arguments
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in rest:
        name, equals, value = text.partition("=")
        if equals and name.isidentifier():
            kwargs[name] = parse_value(value)
        else:
            args.append(parse_value(text))
    try:
        # Checked before connecting: this error needs no node.
        Identifier(identifier)
        status = asyncio.run(send(endpoint, identifier, args, kwargs))
    except ConnectionLostError:
        return f"no node answers at {endpoint}: is it running? Start it with: make run"
    except NotFoundError:
        return f"the server at {endpoint} is not a node: it accepts no messages"
    except (Error, OSError, TypeError, ValueError, OverflowError) as error:
        return f"not sent: {error}"
    if status != "ok":
        return f"not sent: {status}"
    print("sent")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
