"""Import zeroconf, of the extra ``discovery``."""

from ....runtime.extra import missing_package

__all__ = ["check_installed"]


def check_installed() -> None:
    """Do nothing if zeroconf is there.

    Raises:
        ModuleNotFoundError: it is not; the text has the command that installs it.
    """
    try:
        import zeroconf  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "zeroconf":
            raise
        raise missing_package(
            "mdns:// and announce= need zeroconf", "discovery", "zeroconf"
        ) from None
