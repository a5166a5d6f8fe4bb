import berrymq_rpc as berrymq


@berrymq.following_function("order:new")
def bake(message):
    print("baking", *message.args, flush=True)
    berrymq.twitter("order:done", *message.args)


print("the kitchen is at", berrymq.init_connection(("localhost", 5570)), flush=True)
input("Enter ends it.\n")
