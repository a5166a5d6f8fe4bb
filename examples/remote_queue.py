"""Style 03: messages wait in another process until this one asks for them. In two terminals:

    python examples/remote_queue.py keep localhost:5572
    python examples/remote_queue.py work localhost:5572

The worker need not be reachable: it asks for messages when it has time. It sends messages as well.
"""

import sys
import threading

import berrymq_rpc as berrymq


def keep(address: str) -> None:
    @berrymq.following_function("worker:here")
    def hand_out(message: berrymq.Message) -> None:
        for task in ("slice", "knead", "bake"):
            berrymq.twitter("task:new", task, loaves=2)

    @berrymq.following_function("task:done")
    def praise(message: berrymq.Message) -> None:
        print("done:", *message.args, flush=True)

    print("keeping tasks at", berrymq.init_connection(address), flush=True)
    threading.Event().wait()


def work(address: str) -> None:
    # From now on, matching messages wait there. A task that is not done goes back after a minute,
    # and at once if this process dies.
    berrymq.connect_via_queue(address, "task:new", ack_wait=60)
    berrymq.send_message("worker:here")
    while True:
        try:
            with berrymq.get(timeout=2) as message:
                print(message.args[0], message.loaves, "loaves")
                berrymq.send_message("task:done", *message.args)
        except berrymq.Empty:
            print("nothing more to do")
            return
        if message.args[0] == "bake":
            try:
                berrymq.get_nowait()
            except berrymq.Empty:
                print("that was the last")
            return


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["keep", address]:
                keep(address)
            case ["work", address]:
                work(address)
            case _:
                sys.exit(__doc__)
    except (OSError, ValueError, berrymq.Error) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("ended")
