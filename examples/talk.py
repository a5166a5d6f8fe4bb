"""A message whose receivers answer. In two terminals, or the second alone:

    python examples/talk.py serve localhost:5573
    python examples/talk.py ask localhost:5573

What each receiver returns or raises is sent to the identifier that the sender names.
"""

import sys
import threading

import berrymq_rpc as berrymq

PRICES = {"apple": 3, "pear": 4}


@berrymq.following_function("price:wanted")
def price(message: berrymq.Message) -> int:
    return PRICES[message.args[0]]


def serve(address: str) -> None:
    print("prices are at", berrymq.init_connection(address), flush=True)
    threading.Event().wait()


def ask(address: str | None) -> None:
    answers = berrymq.Queue("price:answered")
    if address is not None:
        # Ask the other process alone.
        berrymq.unfollow("price:wanted", price)
        berrymq.interconnect(address)
    for fruit in ("apple", "pear", "stone"):
        berrymq.talk("price:wanted", "price:answered", fruit)
        answer = answers.get(timeout=10)
        if answer.error is not None:
            print(f"{fruit}: {answer.error!r}")
        else:
            print(f"{fruit}: {answer.args[0]}")


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["serve", address]:
                serve(address)
            case ["ask", address]:
                ask(address)
            case ["ask"]:
                ask(None)
            case _:
                sys.exit(__doc__)
    except (OSError, ValueError, berrymq.Error) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("ended")
