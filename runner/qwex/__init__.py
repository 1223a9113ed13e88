"""Qwex runs this directory's commands here, or on any machine with an SSH server.

>>> import qwex
>>> with qwex.Client() as client:
...     job = client.batch(["python", "main.py"])
...     job.wait().state
<State.SUCCEEDED: 'succeeded'>
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qwex.version import __version__

if TYPE_CHECKING:
    from qwex.sdk import Client, Job

__all__ = ["Client", "Job", "__version__"]


def __getattr__(name: str) -> Any:
    """The SDK is imported when it is used: the command line does not need it."""
    if name in {"Client", "Job"}:
        from qwex import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module 'qwex' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
