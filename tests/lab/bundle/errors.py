"""What can go wrong with an artifact, each with one line that says what to do."""

__all__ = ["BundleError", "Damaged", "Failed", "Missing", "NoRoom"]


class BundleError(Exception):
    """An artifact cannot be had. `str()` is the whole message: what happened, to what, and what to do."""


class Missing(BundleError):
    """An artifact, or a program that builds it, is not there."""


class Failed(BundleError):
    """A build ended with an error; the message names its log."""


class Damaged(BundleError):
    """A file is not what its checksum says; the message names the file."""


class NoRoom(BundleError):
    """The disk is full, or too nearly so to begin."""
