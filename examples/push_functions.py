"""Messages within a program: functions that follow them.

An identifier has a name and an action; `*` stands for any name or any action.
"""

import berrymq_rpc as berrymq
from berrymq_rpc import Message, following_function, twitter


@following_function("*:log")
def write_log(message: Message) -> None:
    print(f"log of {message.name}: {message.args[0]}")


@following_function("lamp:*")
def watch_lamp(message: Message) -> None:
    print(f"lamp: {message.action}")


@following_function("lamp:switch")
def switch(message: Message) -> None:
    # A receiver may send as well.
    twitter("lamp:log", f"switched {message.args[0]}")


if __name__ == "__main__":
    print("received by", twitter("lamp:switch", "on"))
    print("received by", twitter("listener:log", "opened"))
    print("received by", twitter("listener:open"))

    # Followers can be added and removed while the program runs.
    berrymq.unfollow("*:log", write_log)
    berrymq.regist_function("listener:*", lambda message: print(f"listener: {message.action}"))
    twitter("listener:log", "closed")
