"""The transport ``nats://host:port/service``: sessions with the servers of a service, over NATS.

Both sides dial a NATS server. One that listens answers whoever looks for its service, and there may
be several. One that connects looks for servers and opens a session with up to `max_servers` of
them; each is a peer of its port, and is lost alone.

Subjects of the service ``calc``; the last token names a session:

==================================  ========================  ==================================
subject                             who subscribes            what arrives
==================================  ========================  ==================================
``berrymq-rpc.calc.find``           each server               a client looks for servers
``berrymq-rpc.calc.up``             each client               a server has started, or leaves
``berrymq-rpc.calc.to.<id>.*``      the server of that id     all from its clients
``berrymq-rpc.calc.beat.<id>``      that server's clients     it lives
``<inbox>.*``                       the client of that inbox  all from its servers
==================================  ========================  ==================================

A message of a session names a subject for answers: where NATS says that nobody is there.
"""

from .dialler import dial
from .listener import listen

__all__ = ["dial", "listen"]
