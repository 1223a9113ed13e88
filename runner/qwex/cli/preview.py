"""``--dry-run`` in words: what would be sent, what is left out and why, and what would be run where with what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwex.cli.rendering import command_text, table
from qwex.cli.terminal import printable
from qwex.model.jobs import StdinMode
from qwex.model.units import duration_text, size_text

if TYPE_CHECKING:
    from qwex.model.jobs import JobSpec
    from qwex.services.submission import Plan

__all__ = ["preview"]


def preview(sent: Plan) -> str:
    """Lines for people; scripts take ``Plan.to_json``."""
    lines = [f"workspace  {printable(str(sent.root))}", f"would send {_files(sent.files)}, {size_text(sent.size)}"]
    if sent.largest:
        lines.append("largest")
        lines += [f"  {size_text(size):>8}  {_path(path)}" for path, size in sent.largest]
    if sent.ignored:
        reach = "reachable through links" if sent.linked else "they stay behind; --include sends some along"
        lines.append(f"left out by ignore rules ({reach})")
        lines += [f"  {_path(path)}" for path in sent.ignored]
    for spec in sent.specs:
        lines.append(f"would run on {sent.place.name}")
        lines += ["  " + "  ".join(row) for row in table(_facts(spec))]
    return "\n".join(lines) + "\n"


def _path(path: bytes) -> str:
    return printable(path.decode("utf-8", "surrogateescape"))


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def _facts(spec: JobSpec) -> list[tuple[str, str]]:
    needs = spec.resources
    facts = [
        ("command", command_text(spec)),
        ("shell", "/bin/sh" if spec.shell else ""),
        ("directory", spec.cwd if spec.cwd != "." else ""),
        ("name", spec.name),
        ("cpus", f"{needs.cpus:g}"),
        ("mem", size_text(needs.mem) if needs.mem else ""),
        ("gpus", f"{needs.gpus} {needs.gpu_product}".strip() if needs.gpus else ""),
        ("time limit", duration_text(spec.time_limit) if spec.time_limit else ""),
        ("priority", str(spec.priority) if spec.priority else ""),
        ("retries", str(spec.retries) if spec.retries else ""),
        ("array", f"{spec.array} ({len(spec.array.indexes)} tasks)" if spec.array else ""),
        ("after", ", ".join(f"{one.run_id}:{one.condition}" for one in spec.after)),
        ("env", ", ".join(name for name, _ in spec.env)),
        ("secrets", ", ".join(spec.secrets)),
        ("results", ", ".join(spec.out) or "every file created or changed"),
        ("stdin", "" if spec.stdin is StdinMode.NONE else "passed on"),
    ]
    return [(name, printable(value)) for name, value in facts if value]
