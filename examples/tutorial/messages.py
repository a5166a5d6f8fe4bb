import berrymq_rpc as berrymq


@berrymq.following_function("oven:hot")
def call_baker(message):
    print("the oven has", *message.args)


@berrymq.following_function("oven:*")
def log(message):
    print("log:", message.id, *message.args)


berrymq.twitter("oven:on")
reached = berrymq.twitter("oven:hot", 220)
print("functions called:", reached)

with berrymq.Queue("oven:off") as queue:
    berrymq.twitter("oven:off")
    print("in the queue:", queue.get(timeout=1).id)
