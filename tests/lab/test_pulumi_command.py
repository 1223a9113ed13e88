"""The command provider's contract: run against the stand-in always, and against the real plugin where it is installed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pulumi
import pytest
from pulumi import automation as auto
from pulumi_command import local, remote
from tests.lab.machine import Machine
from tests.lab.pulumi_programs import changes, counts
from tests.lab.pulumi_stack import PulumiEnv, environment, real_plugins

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", params=["stand-in", "real"])
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulumiEnv]:
    """The engine with the stand-ins, and with the real plugins."""
    real = real_plugins() if request.param == "real" else {}
    if request.param == "real" and "command" not in real:
        pytest.skip("the real pulumi-resource-command is not installed under the Pulumi home")
    with environment(tmp_path_factory.mktemp("pulumi"), real) as made:
        yield made


class Stack:
    """One stack whose program may be another at every operation."""

    def __init__(self, env: PulumiEnv) -> None:
        self.output: list[str] = []
        self.program: Callable[[], None] = lambda: None
        self.auto = env.stack(f"t{secrets.token_hex(4)}", lambda: self.program())

    def up(self, program: Callable[[], None]) -> auto.UpResult:
        """Makes it so."""
        self.program = program
        return self.auto.up(on_output=self.output.append)

    def preview(self, program: Callable[[], None]) -> auto.PreviewResult:
        """What `up` would do."""
        self.program = program
        return self.auto.preview(on_output=self.output.append)

    def destroy(self) -> None:
        """Removes everything."""
        self.auto.destroy(on_output=self.output.append)


@pytest.fixture
def stack(env: PulumiEnv) -> Iterator[Stack]:
    """A stack of its own, destroyed afterwards."""
    made = Stack(env)
    yield made
    made.destroy()


def noting(file: Path, create: str, triggers: list[str] | None = None, update: str | None = None) -> Callable[[], None]:
    """A program whose one command writes into a file what it does."""

    def program() -> None:
        made = local.Command(
            "note",
            create=f"echo {create} | tee -a {file}",
            update=update and f"echo {update} after $PULUMI_COMMAND_STDOUT | tee -a {file}",
            delete=f"echo gone after $PULUMI_COMMAND_STDOUT >> {file}",
            triggers=triggers,
        )
        pulumi.export("said", made.stdout)

    return program


def test_a_local_command_is_run_changed_replaced_and_undone(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "notes"

    def notes() -> list[str]:
        return file.read_text().splitlines() if file.exists() else []

    assert counts(stack.preview(noting(file, "one")).change_summary) == {"create": 2}
    assert notes() == []
    assert stack.up(noting(file, "one")).outputs["said"].value == "one"
    assert changes(stack.up(noting(file, "one"))) == {}
    assert notes() == ["one"]
    assert changes(stack.up(noting(file, "two"))) == {"update": 1}
    assert changes(stack.up(noting(file, "two", update="three"))) == {"update": 1}
    assert notes() == ["one", "two", "three after two"]
    assert changes(stack.up(noting(file, "four", ["now"]))) == {"replace": 1}
    assert notes()[3:] == ["four", "gone after three after two"]
    stack.destroy()
    assert notes()[5:] == ["gone after four"]


def test_a_failing_command_says_how_and_why(stack: Stack) -> None:
    def program() -> None:
        local.Command("bad", create="echo the reason >&2; exit 3")

    with pytest.raises(auto.CommandError, match=r"(?s)exit status 3.*the reason"):
        stack.up(program)
    recorded = stack.auto.export_stack().deployment or {}
    assert not [each for each in recorded["resources"] if each["type"].startswith("command:")]


def test_what_is_secret_stays_so(stack: Stack, env: PulumiEnv) -> None:
    word = secrets.token_hex(16)

    def program() -> None:
        made = local.Command(
            "quiet",
            create='printf "%s" "$WORD"',
            environment={"WORD": pulumi.Output.secret(word)},
            logging=local.Logging.NONE,
        )
        pulumi.export("said", made.stdout)

    result = stack.up(program)
    assert (result.outputs["said"].value, result.outputs["said"].secret) == (word, True)
    assert word not in env.written() + "".join(stack.output)


def test_a_function_runs_at_once(stack: Stack) -> None:
    def program() -> None:
        pulumi.export("said", local.run_output(command="echo hi", logging=local.Logging.NONE).stdout)

    assert stack.up(program).outputs["said"].value == "hi"


def connection(machine: Machine) -> remote.ConnectionArgs:
    """How to get into a machine, its host key checked."""
    return remote.ConnectionArgs(
        host=machine.address, user=machine.user, private_key=machine.key.read_text(), host_key=machine.host_key
    )


def test_a_remote_machine_is_commanded_and_given_files(
    stack: Stack, env: PulumiEnv, machines: Callable[[int], list[Machine]], tmp_path: Path
) -> None:
    (machine,) = machines(1)
    (tmp_path / "file").write_text("first\n")

    def program() -> None:
        there = connection(machine)
        file = remote.CopyToRemote(
            "file", connection=there, source=pulumi.FileAsset(str(tmp_path / "file")), remote_path="deep/file"
        )
        made = remote.Command(
            "there",
            connection=there,
            create="cat deep/file - | sudo tee /etc/made",
            stdin="second\n",
            delete="sudo cp /etc/made /etc/last",  # after a replacement too, when the new one has been made already
            triggers=[file.source],
            opts=pulumi.ResourceOptions(depends_on=[file]),
        )
        pulumi.export("said", made.stdout)

    assert stack.up(program).outputs["said"].value == "first\nsecond"
    assert machine.read("/etc/made") == "first\nsecond\n"
    assert changes(stack.up(program)) == {}
    (tmp_path / "file").write_text("other\n")
    assert changes(stack.up(program)) == {"update": 1, "replace": 1}
    assert machine.read("/etc/made") == "other\nsecond\n"
    assert machine.key.read_text().splitlines()[1] not in env.written()
    stack.destroy()
    assert machine.read("/etc/last") == "other\nsecond\n"


def test_a_machine_that_is_another_one_is_refused(stack: Stack, machines: Callable[[int], list[Machine]]) -> None:
    (machine, other) = machines(2)

    def program() -> None:
        there = remote.ConnectionArgs(
            host=machine.address,
            user=machine.user,
            private_key=machine.key.read_text(),
            host_key=other.host_key,
            dial_error_limit=1,
        )
        remote.Command("there", connection=there, create="sudo touch /etc/made")

    with pytest.raises(auto.CommandError, match="after 1 failed attempts"):
        stack.up(program)
    assert machine.run("test", "-e", "/etc/made", check=False).returncode == 1
