"""Style 01: two processes share all their messages. In two terminals:

    python examples/interconnect.py wait localhost:5570
    python examples/interconnect.py join localhost:5570

What one of them sends reaches the followers in both, as if they were one program.
"""

import sys
import threading

import berrymq_rpc as berrymq

answered = threading.Event()


def wait(address: str) -> None:
    @berrymq.following_function("question:asked")
    def answer(message: berrymq.Message) -> None:
        print("asked:", *message.args, flush=True)
        berrymq.twitter("question:answered", message.args[0], 42)

    print("waiting at", berrymq.init_connection(address), flush=True)
    threading.Event().wait()


def join(address: str) -> None:
    @berrymq.following_function("question:answered")
    def show(message: berrymq.Message) -> None:
        print("answered:", *message.args)
        answered.set()

    berrymq.interconnect(address)
    berrymq.twitter("question:asked", "what do you get if you multiply six by nine?")
    # Names that begin with an underscore never leave their process.
    berrymq.twitter("_question:asked", "what is in my pocket?")
    if not answered.wait(timeout=10):
        sys.exit("no answer")


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["wait", address]:
                wait(address)
            case ["join", address]:
                join(address)
            case _:
                sys.exit(__doc__)
    except (OSError, ValueError, berrymq.Error) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("ended")
