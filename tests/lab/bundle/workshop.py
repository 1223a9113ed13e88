"""Builds what is missing, two artifacts at a time, in the order of the table."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from tests.lab.bundle import golang
from tests.lab.bundle.bench import Cancelled, Running, WorkBench
from tests.lab.bundle.errors import Missing, NoRoom
from tests.lab.bundle.layout import Bundle, assemble, sweep
from tests.lab.bundle.progress import Progress
from tests.lab.bundle.recipe import Recipe, keys
from tests.lab.bundle.recipes import table
from tests.lab.bundle.store import Artifact, Store, discard, place_in

__all__ = ["Workshop", "cache_directory", "cached", "ready"]

WORKERS = 2  # while one links or downloads, the other compiles
ROOM = 3 << 30  # bytes that must be free before a build begins


def cache_directory() -> Path:
    """`QWEX_LAB_CACHE`, else `~/.cache/qwex-lab`."""
    return Path(os.environ.get("QWEX_LAB_CACHE") or Path.home() / ".cache" / "qwex-lab").absolute()


class Workshop:
    """A table of recipes and the cache they are built into."""

    def __init__(self, table: Mapping[str, Recipe], cache: Path, *, room: int = ROOM) -> None:
        self.table, self.store, self.keys, self._room = table, Store(cache), keys(table), room

    def find(self, name: str, *, whole: bool = False) -> Artifact | None:
        return self.store.find(self.table[name], self.keys[name], whole=whole)

    def wanted(self, names: tuple[str, ...]) -> list[str]:
        """Those artifacts, all when none is named, with what they need, in the table's order. Missing for an unknown one."""
        if unknown := [name for name in names if name not in self.table]:
            raise Missing(f"there is no artifact {unknown[0]}; there are: {', '.join(self.table)}")
        found: set[str] = set()
        left = list(names or self.table)
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += self.table[name].needs
        return [name for name in self.table if name in found]

    def cached(self, *names: str) -> Bundle | None:
        """What is there, if all of it is."""
        if any(self.find(name) is None for name in self.wanted(names)):
            return None
        return self._bundle()

    def ready(self, *names: str) -> Bundle:
        """Build what is missing first. BundleError, in one readable message, when that cannot be done."""
        missing = [name for name in self.wanted(names) if self.find(name) is None]
        if missing:
            try:
                self._require(missing)
                self._build(missing)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise NoRoom(f"no room left on the disk of {self.store.cache}") from error
        return self._bundle()

    def prune(self) -> int:
        """Remove artifacts that no recipe makes any more, and bundles that are not current; how many bytes that freed."""
        before = shutil.disk_usage(self.store.cache).free
        self.store.prune({found.entry for name in self.table if (found := self.find(name)) is not None})
        sweep(self.store)
        return max(0, shutil.disk_usage(self.store.cache).free - before)

    def _bundle(self) -> Bundle:
        """All that is built, whether asked for or not: a smaller demand must not take files from the bundle."""
        return assemble(self.store, [found for name in self.table if (found := self.find(name)) is not None])

    def _require(self, missing: list[str]) -> None:
        recipes = [self.table[name] for name in missing]
        programs = {program for recipe in recipes for program in recipe.requires}
        if absent := sorted(program for program in programs if shutil.which(program) is None):
            raise Missing(f"the lab's artifacts cannot be built: install {', '.join(absent)}")
        if "go" in programs:
            golang.require(path for recipe in recipes if "go" in recipe.requires for path in recipe.inputs)
        free = shutil.disk_usage(self.store.cache).free
        if free < self._room:
            raise NoRoom(f"{self.store.cache} has {free >> 20} MiB free, a build needs {self._room >> 20}")

    def _build(self, missing: list[str]) -> None:
        running = Running()
        futures: dict[Future[None], str] = {}
        left = list(missing)
        with Progress(len(missing)) as progress, ThreadPoolExecutor(WORKERS) as pool:
            try:
                while left or futures:
                    unfinished = {*left, *futures.values()}
                    for name in [each for each in left if unfinished.isdisjoint(self.table[each].needs)]:
                        if len(futures) < WORKERS:
                            left.remove(name)
                            futures[pool.submit(self._one, name, running, progress)] = name
                    for future in wait(futures, return_when=FIRST_COMPLETED).done:
                        del futures[future]
                        future.result()
            except BaseException:
                running.cancel()
                raise

    def _one(self, name: str, running: Running, progress: Progress) -> None:
        recipe, key = self.table[name], self.keys[name]
        progress.begin(recipe.title)

        def waiting(holder: str) -> None:
            progress.say(f"{recipe.title}: {holder} is building it; waiting")

        with self.store.lock(recipe.name, waiting, check=running.check):
            if self.find(name) is not None:
                progress.end(recipe.title, "built by another process")
                return
            inputs = {need: found.out for need in recipe.needs if (found := self.find(need)) is not None}
            place = self.store.workplace(recipe)
            log = place_in(self.store.cache, "build-logs") / f"{recipe.name}.log"
            log.write_text(f"{recipe.title}, key {key}\n")
            try:
                recipe.build(WorkBench(recipe, place, log, inputs, running))
                shutil.rmtree(place / "scratch")
                (place / "answer").unlink(missing_ok=True)
                self.store.put(recipe, key, place)
            except BaseException:
                progress.end(recipe.title, "failed" if not _cancelled(running) else "stopped")
                discard(place)
                raise
            progress.end(recipe.title)


def _cancelled(running: Running) -> bool:
    try:
        running.check()
    except Cancelled:
        return True
    return False


def _standard() -> Workshop:
    return Workshop(table(), cache_directory())


def ready(*names: str) -> Bundle:
    """The bundle with those artifacts in it (all when none is named), built first where they are missing.

    Progress goes to standard error. BundleError with one readable message when something cannot be built.
    """
    return _standard().ready(*names)


def cached(*names: str) -> Bundle | None:
    """The bundle if those artifacts (all when none is named) are built already, else None. Builds nothing."""
    return _standard().cached(*names)
