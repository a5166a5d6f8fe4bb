"""What helps to test programs and transports: faults on a link, and checks of a transport.

* `link_faults`: what goes wrong between the two sides of a `mem://` address.
* `nats_server`: a NATS server of one's own, for programs that use ``nats://``.
* `conformance`: what every transport has to do, as checks that run over any of them.

Nothing here is imported by the rest of the package, and nothing here needs a test framework.
"""

from .link_faults import LinkFaults, link_faults

__all__ = ["LinkFaults", "link_faults"]
