"""The program: an oven that says on the bus how hot it is, and asks a server what to do."""

import berrymq_rpc as berrymq


@berrymq.following_function("oven:heat")
def heat(message):
    berrymq.twitter("oven:log", message.args[0] + 20, unit="C")


def ask(client, temperature):
    try:
        return client.rpc.advice(temperature)
    except ConnectionError:
        return "wait"
