"""Messages within a program: objects that follow them.

A class with the metaclass `Follower` may follow messages with its methods. Each of its objects does
so from its creation until it is gone. Who sends need not know who follows.
"""

import berrymq_rpc as berrymq
from berrymq_rpc import Follower, Message, following


class Thermometer:
    """Sends what it measures, and knows nobody."""

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
