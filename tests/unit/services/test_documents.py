"""Every error code is documented."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from pathlib import Path

import qwex
from qwex.errors import QwexError

DOCUMENT = (Path(__file__).parents[3] / "runner/docs/errors.md").read_text()


def kinds(kind: type[QwexError]) -> set[type[QwexError]]:
    return {kind}.union(*(kinds(one) for one in kind.__subclasses__()))


def test_every_error_code_is_documented_with_its_exit_status() -> None:
    for module in pkgutil.walk_packages(qwex.__path__, "qwex."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    ours = {(one.code, one.exit_status) for one in kinds(QwexError) if one.__module__.startswith("qwex.")}
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d) \|", DOCUMENT, re.MULTILINE)
    assert {(code, int(status)) for code, status in rows} == ours
