"""Style 02: a process sends messages to another one, and receives none. In two terminals:

python examples/oneway.py collect localhost:5571
python examples/oneway.py report localhost:5571
"""

import sys
import threading

import berrymq_rpc as berrymq


class Collector(metaclass=berrymq.Follower):
    """Follow messages of other processes in the same way as those of this process."""

    @berrymq.following("sensor:*")
    def receive(self, message: berrymq.Message) -> None:
        print(message.action, *message.args, dict(message.kwargs), flush=True)


def collect(address: str) -> None:
    collector = Collector()
    print(type(collector).__name__, "is at", berrymq.init_connection(address), flush=True)
    threading.Event().wait()


def report(address: str) -> None:
    berrymq.connect_oneway(address)
    for number in range(3):
        # The answer comes when the message has been published there.
        status = berrymq.send_message("sensor:measured", 20 + number, unit="C")
        print("sent:", status)
    berrymq.close_connection()


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["collect", address]:
                collect(address)
            case ["report", address]:
                report(address)
            case _:
                sys.exit(__doc__)
    except (OSError, ValueError, berrymq.Error) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("ended")
