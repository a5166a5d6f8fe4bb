"""Messages within a program: objects that follow them.

The methods of a class with the metaclass `Follower` may follow messages. Each object follows them
from its creation until it is deleted. A sender need not know who follows.
"""

import berrymq_rpc as berrymq
from berrymq_rpc import Follower, Message, following


class Thermometer:
    """Send what it measures, without knowing the followers."""

    def measure(self, room: str, degrees: float) -> None:
        berrymq.twitter(f"{room}:measured", degrees, unit="C")


class Display(metaclass=Follower):
    @following("*:measured")
    def show(self, message: Message) -> None:
        print(f"{message.name}: {message.args[0]} {message.unit}")


class Alarm(metaclass=Follower):
    def __init__(self, limit: float) -> None:
        self.limit = limit

    # A guard decides whether a message is received.
    @following("kitchen:measured", lambda message: message.args[0] > 50)
    def ring(self, message: Message) -> None:
        print(f"{message.args[0] - self.limit:.0f} degrees too hot in the {message.name}!")


if __name__ == "__main__":
    display, alarm = Display(), Alarm(limit=50)
    thermometer = Thermometer()
    thermometer.measure("cellar", 11.5)
    thermometer.measure("kitchen", 21)
    thermometer.measure("kitchen", 80)

    # Following ends with the object.
    del display
    thermometer.measure("cellar", 12)
