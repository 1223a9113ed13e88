"""Files that Qwex writes for its user or sends elsewhere."""

from pathlib import Path

__all__ = ["text"]


def text(name: str) -> str:
    """The asset ``name``, a file beside this one."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
