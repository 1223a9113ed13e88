"""``qwex pull``: results come home."""

from __future__ import annotations

import os

import typer

from qwex.cli.arguments import Json, Refs, SyncBack, To
from qwex.cli.bridge import Signals, run
from qwex.cli.output import write_text
from qwex.cli.records import print_json
from qwex.cli.shape import command, terminal_of
from qwex.errors import UsageError
from qwex.services import results, runs
from qwex.services.context import Context
from qwex.services.results import Pulled

__all__ = ["app"]

app, _command = command()


@_command
def pull(ctx: typer.Context, refs: Refs, to: To = None, sync_back: SyncBack = None, as_json: Json = False) -> int:
    """Fetch the results of runs, whatever their size, and print the directory they are in.

    Of a run that goes on: what its ended tasks made. May be repeated.
    """
    if to is not None and len(refs) > 1:
        raise UsageError("--to takes the results of one run", hint="fetch them in turn, each to its own directory")
    terminal = terminal_of(ctx)

    async def work(context: Context, _: Signals) -> list[tuple[str, Pulled]]:
        fetched = []
        for ref in refs:
            found, task = runs.find(context, ref)
            if task is not None:
                raise UsageError(f"{ref!r}: results are fetched for whole runs", hint=f"write {found.id}")
            (fresh,) = await runs.refresh(context, [found])
            one = await results.pull(context, fresh, to, sync_back=sync_back, whatever_size=True)
            fetched.append((found.id, one))
            terminal.note(f"run {found.id}: {one.describe(context.directory)}")
            for edited, beside in one.conflicts:
                terminal.warn(f"{edited} was edited meanwhile and left alone; the run's is {beside.name} beside it")
        return fetched

    fetched = run(terminal, work)
    if as_json:
        records = [_record(run_id, one) for run_id, one in fetched]
        print_json(records[0] if len(records) == 1 else records)
    else:
        write_text("".join(f"{one.directory}\n" for _, one in fetched if one.directory is not None))
    return 0


def _record(run_id: str, one: Pulled) -> dict[str, object]:
    return {
        "id": run_id,
        "directory": None if one.directory is None else os.fspath(one.directory),
        "files": one.files,
        "bytes": one.size,
        "conflicts": [{"edited": str(edited), "beside": str(beside)} for edited, beside in one.conflicts],
    }
