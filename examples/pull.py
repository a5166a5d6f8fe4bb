"""Messages within a program: they wait in queues until they are asked for.

Two workers share one queue, so each piece of work is done once. Another queue has its own copy of
every message, and keeps the last two.
"""

import threading

import berrymq_rpc as berrymq

done: list[str] = []


def work(tasks: berrymq.Queue) -> None:
    # The loop ends when the queue is closed and empty.
    for task in tasks:
        done.append(task.apply("{} x {}".format))


if __name__ == "__main__":
    queues = [berrymq.Queue("task:*", shared=True) for _ in range(2)]
    newest = berrymq.Queue("task:*", maxsize=2)
    workers = [threading.Thread(target=work, args=(queue,)) for queue in queues]
    for worker in workers:
        worker.start()

    for number in range(5):
        berrymq.twitter("task:new", number, "bread")

    for queue in queues:
        queue.close()
    for worker in workers:
        worker.join()
    print("done:", *sorted(done), sep="\n  ")

    print("the newest:", newest.get().args, newest.get_nowait().args, "dropped:", newest.dropped)
    try:
        newest.get(timeout=0.1)
    except berrymq.Empty:
        print("nothing more")
