"""What this user's runs are, on disk: one SQLite file that every client and the local worker share."""

from qwex.store.runs import RunStore

__all__ = ["RunStore"]
