"""What helps to test programs and transports. Nothing here needs a test framework.

* `Kit`: servers, clients and buses for one test, which fail as the test says, and are closed after
  it. It is the fixture ``berrymq`` of the pytest plugin.
* `link_faults`: what goes wrong between the two sides of a ``mem://`` address.
* `nats_server`: a NATS server of one's own, for programs that use ``nats://``.
* `conformance`: what every transport has to do, as checks that run over any of them.

Nothing here is imported by the rest of the package.
"""

from .heard import Heard
from .kit import Kit
from .kit_server import KitServer
from .link import Link
from .link_faults import LinkFaults, link_faults
from .method_plan import MethodPlan
from .raises_within import RaisesWithin
from .sync_kit_server import SyncKitServer

__all__ = [
    "Heard",
    "Kit",
    "KitServer",
    "Link",
    "LinkFaults",
    "MethodPlan",
    "RaisesWithin",
    "SyncKitServer",
    "link_faults",
]
