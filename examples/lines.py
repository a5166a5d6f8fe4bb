"""Calls over TCP with a plain socket, as in any language: one JSON text per line.

python examples/lines.py 127.0.0.1 8081
"""

import json
import socket
import sys


def main() -> None:
    host, port = sys.argv[1:3] if len(sys.argv) > 2 else ("127.0.0.1", "8081")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        lines = connection.makefile("rw", encoding="utf-8", newline="\n")

        def call(method: str, *params: object) -> object:
            json.dump({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}, lines)
            lines.write("\n")
            lines.flush()
            answer = json.loads(lines.readline())
            return answer["error"]["message"] if "error" in answer else answer["result"]

        print("a call:", call("divide", 1, 4))
        print("its error:", call("divide", 1, 0))
        call("subscribe", "greeting:*")
        token = call("connect_oneway", 60)
        # Without an id it is a notification: no answer comes, only the message itself.
        json.dump(
            {
                "jsonrpc": "2.0",
                "method": "send_message",
                "params": [token, "greeting:hello", ["you"], {}],
            },
            lines,
        )
        lines.write("\n")
        lines.flush()
        message = json.loads(lines.readline())["params"]
        print("a message:", message["id"], *message["args"])
        lines.close()


if __name__ == "__main__":
    main()
