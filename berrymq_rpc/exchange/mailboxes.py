"""The queues that a node keeps for other processes, and which of them are shared."""

from ..bus import Message
from ..bus.gateway import Gateway
from ..identifier import Identifier
from .mailbox import Mailbox
from .parcel import Packer

__all__ = ["Mailboxes"]


class Mailboxes:
    """Opens mailboxes on a bus, and closes each when the last that has it leaves.

    Args:
        gateway: that of the bus whose messages to keep.
        name: what is said on the bus about them says to come from there.
        maxsize, maxbytes: the bounds of each.
    """

    def __init__(self, gateway: Gateway, name: str, maxsize: int, maxbytes: int) -> None:
        self._gateway = gateway
        self._name = name
        self._maxsize = maxsize
        self._maxbytes = maxbytes
        self._packer = Packer()
        #: How many tokens stand for each.
        self._owners: dict[Mailbox, int] = {}
        self._shared: dict[Identifier, Mailbox] = {}
        #: Of those that are closed.
        self._dropped = 0

    def open(self, identifier: Identifier, shared: bool) -> Mailbox:
        """A mailbox that follows `identifier` from now on.

        Args:
            shared: whether it is the one of all who ask so for this identifier.
        """
        mailbox = self._shared.get(identifier) if shared else None
        if mailbox is None:
            mailbox = Mailbox(
                identifier,
                self._maxsize,
                self._maxbytes,
                packer=self._packer,
                told=self._tell_dropped,
            )
            # What is local stays here, whatever wildcards the queue has.
            self._gateway.follow(identifier, mailbox.put, _may_leave)
            if shared:
                self._shared[identifier] = mailbox
        self._owners[mailbox] = self._owners.get(mailbox, 0) + 1
        return mailbox

    def leave(self, mailbox: Mailbox, owner: object) -> None:
        """Undo one `open`.

        Args:
            owner: whose `Mailbox.get` ends now, with nothing.
        """
        self._owners[mailbox] -= 1
        if self._owners[mailbox]:
            mailbox.dismiss(owner)
            return
        del self._owners[mailbox]
        if self._shared.get(mailbox.identifier) is mailbox:
            del self._shared[mailbox.identifier]
        self._gateway.unfollow(mailbox.identifier, mailbox.put)
        mailbox.close()
        self._dropped += mailbox.dropped

    @property
    def waiting(self) -> int:
        """How many messages wait in all of them."""
        return sum(map(len, self._owners))

    @property
    def dropped(self) -> int:
        """How many messages were dropped, in those that are closed as well."""
        return self._dropped + sum(mailbox.dropped for mailbox in self._owners)

    def _tell_dropped(self, mailbox: Mailbox) -> None:
        told = {"identifier": str(mailbox.identifier), "count": mailbox.dropped}
        # As `Router.tell` does it: it is carried to no other node.
        self._gateway.relay("queue:dropped", (), told, self._name)


def _may_leave(message: Message) -> bool:
    return not message.name.startswith("_")
