"""Pulumi in the lab: the real engine with a state in a directory, and providers that are real or stood in for.

The fixture `pulumi_env` hands out stacks with inline programs. Where the real plugins are installed under the user's own
Pulumi home they are used; otherwise the stand-ins of `tests.lab.providers` are started and attached.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from pulumi import automation as auto
from tests.lab import bundle as bundles
from tests.lab.providers.server import PROVIDERS, debug_providers

REPOSITORY: Final = Path(__file__).resolve().parents[2]
INSTALLED: Final = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi") / "plugins"
"""Looked up when this module is loaded: tests get a home of their own later."""

PASSPHRASE: Final = "the lab's own"
START: Final = 30.0
"""Seconds for the stand-ins to say where they listen."""


def real_plugins(plugins: Path = INSTALLED) -> dict[str, Path]:
    """The real plugins among those that can be stood in for, by package: the newest installed of each."""
    found: dict[str, Path] = {}
    for package in PROVIDERS:
        name = f"pulumi-resource-{package}"
        installed = [each for each in plugins.glob(f"resource-{package}-v*") if (each / name).is_file()]
        if installed:
            found[package] = max(installed, key=lambda each: each.stat().st_mtime)
    return found


@contextmanager
def stand_ins(packages: list[str], log: Path) -> Iterator[dict[str, int]]:
    """Serves stand-ins from a process of their own while the block runs: their ports by package.

    Their standard error goes to `log`. Raises RuntimeError, with the log, when they do not start.
    """
    if not packages:
        yield {}
        return
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")}
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.providers", *packages],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()  # an end without a line is an empty one: it never hangs on a dead process
        if not line:
            raise RuntimeError(f"the providers' stand-ins did not start:\n{log.read_text(errors='replace')}")
        yield {str(package): int(port) for package, port in json.loads(line).items()}
    finally:
        process.stdin.close()  # the signal to leave
        try:
            process.wait(START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@dataclass
class PulumiEnv:
    """A place for stacks: the engine, the state's directory, and the providers of one test session."""

    cli: Path
    directory: Path
    ports: dict[str, int]
    real: dict[str, Path]
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """The directory that the state lies in, history and backups included."""
        return self.directory / "state"

    @property
    def environment(self) -> dict[str, str]:
        """What the engine is run with."""
        variables = {
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            **self.extra,
        }
        if self.ports:
            variables["PULUMI_DEBUG_PROVIDERS"] = debug_providers(self.ports)
        return variables

    def stack(self, name: str, program: Callable[[], None], project: str = "lab") -> auto.Stack:
        """A stack with an inline program; the same name is the same state. Nothing is run yet."""
        work, home = self.directory / "work" / name, self.directory / "home"
        for each in (work, home, self.state):
            each.mkdir(parents=True, exist_ok=True)
        if self.real and not (home / "plugins").exists():
            (home / "plugins").symlink_to(INSTALLED)
        settings = auto.ProjectSettings(
            name=project, runtime="python", backend=auto.ProjectBackend(f"file://{self.state}")
        )
        return auto.create_or_select_stack(
            name,
            project_name=project,
            program=program,
            opts=auto.LocalWorkspaceOptions(
                work_dir=str(work),
                pulumi_home=str(home),
                pulumi_command=auto.PulumiCommand(root=str(self.cli)),
                project_settings=settings,
                env_vars=self.environment,
            ),
        )

    def written(self) -> str:
        """Everything that the state's directory holds, as one text: for what must not be in it."""
        files = sorted(path for path in self.state.rglob("*") if path.is_file())
        return "\n".join(path.read_text(errors="replace") for path in files)


def engine() -> Path | None:
    """The directory whose `bin` holds the Pulumi engine of the bundle, or of QWEX_LAB_PULUMI; None when neither is there."""
    if given := os.environ.get("QWEX_LAB_PULUMI"):
        return Path(given)
    found = bundles.cached("pulumi")
    return found.path("pulumi/pulumi").parent if found else None


@contextmanager
def environment(directory: Path, real: dict[str, Path]) -> Iterator[PulumiEnv]:
    """An environment in a directory: the real plugins given, stand-ins for the others. Skips the test without an engine."""
    cli = engine()
    if cli is None:
        pytest.skip("the Pulumi engine is not built: python -m tests.lab build pulumi (once, two minutes)")
    root = directory / "cli"
    (root / "bin").mkdir(parents=True)
    binary = next(path for path in (cli / "bin" / "pulumi", cli / "pulumi") if path.is_file())
    (root / "bin" / "pulumi").symlink_to(binary)
    with stand_ins([package for package in PROVIDERS if package not in real], directory / "stand-ins.log") as ports:
        yield PulumiEnv(root, directory, ports, real)


@pytest.fixture(scope="session")
def pulumi_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulumiEnv]:
    """The Pulumi engine with its providers, real where they are installed, and an empty state."""
    with environment(tmp_path_factory.mktemp("pulumi"), real_plugins()) as env:
        yield env
