import berrymq_rpc as berrymq

berrymq.interconnect(("localhost", 5570))
with berrymq.Queue("order:done") as done:
    for what in ("bread", "rolls"):
        berrymq.twitter("order:new", what)
        print("ready:", *done.get(timeout=5).args)
