"""The stand-in for pulumi-resource-command: the provider's operations, as version 1.2.1 does them."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Final

from tests.lab.providers.command import copy, local, remote, schema, ssh
from tests.lab.providers.command.schema import Shape
from tests.lab.providers.provider import Diff, Failure, Naming, Provider, Refused, Urn, covers, parse_path, unique
from tests.lab.providers.wire import UNKNOWN, Tree, has_unknown, reveal

STREAMS: Final = ("stdout", "stderr")


class Command(Provider):
    """It has no configuration: every resource says itself where it runs."""

    package = "command"
    version = version("pulumi-command")

    def configure(self, variables: dict[str, str]) -> None:
        """There is nothing to configure."""

    def _shape(self, urn: Urn) -> Shape:
        try:
            return schema.RESOURCES[urn.type]
        except KeyError:
            raise Refused(f"unknown resource type {urn.type}; there is {', '.join(schema.RESOURCES)}") from None

    def _say(self, urn: Urn) -> Callable[[str], None]:
        return lambda line: self.log("INFO", line, urn.text, passing=True)

    def check(self, urn: Urn, olds: Tree, news: Tree, naming: Naming) -> tuple[Tree, list[Failure]]:
        """Types, and the defaults of a connection."""
        shape = self._shape(urn)
        if failures := schema.faults(shape, news):
            return news, failures
        return schema.complete(shape, news), []

    def diff(self, urn: Urn, state: Tree, news: Tree, ignore: list[str]) -> Diff:
        """Any input that differs."""
        found = schema.diff(self._shape(urn), state, news)
        ignored = [parse_path(text) for text in ignore]
        kept = {
            path: change
            for path, change in found.properties.items()
            if not any(covers(pattern, parse_path(path)) for pattern in ignored)
        }
        return Diff(kept)

    def create(self, urn: Urn, inputs: Tree, timeout: float, preview: bool) -> tuple[str, Tree]:
        """Runs `create`, or copies."""
        shape = self._shape(urn)
        if preview:
            return "", schema.outputs(shape, inputs, dict.fromkeys(shape.outputs, UNKNOWN))
        values = self._work(urn, reveal(inputs), reveal(inputs).get("create"), {})
        prefix = urn.name if shape.outputs else ""
        return unique(prefix), schema.outputs(shape, inputs, values)

    def update(
        self, urn: Urn, identity: str, state: Tree, news: Tree, ignore: list[str], timeout: float, preview: bool
    ) -> Tree:
        """Runs `update`, or `create` where there is none; copies again what has changed."""
        shape, old, new = self._shape(urn), reveal(state), reveal(news)
        before = {key: old[key] for key in STREAMS if key in old}
        if preview:
            return schema.outputs(shape, news, dict.fromkeys(shape.outputs, UNKNOWN))
        if not shape.outputs and all(old.get(key) == new.get(key) for key in ("source", "remotePath")):
            return schema.outputs(shape, news, {})
        values = self._work(urn, new, new.get("update") or new.get("create"), before)
        return schema.outputs(shape, news, values)

    def read(self, urn: Urn, identity: str, inputs: Tree, state: Tree) -> tuple[Tree, Tree] | None:
        """A command leaves nothing to look at: the state is what it was."""
        return inputs, state

    def delete(self, urn: Urn, identity: str, state: Tree, timeout: float) -> None:
        """Runs `delete`; a copy is left where it is."""
        old = reveal(state)
        if self._shape(urn).outputs and old.get("delete"):
            self._work(urn, old, old["delete"], {key: old[key] for key in STREAMS if key in old})

    def _work(self, urn: Urn, inputs: Tree, command: str | None, outputs: Tree) -> Tree:
        say = self._say(urn)
        match urn.type:
            case "command:remote:CopyToRemote":
                ssh.alone(copy.to_remote(inputs, say), self.cancelled)
                return {}
            case "command:remote:CopyFile":
                ssh.alone(copy.file(inputs, say), self.cancelled)
                return {}
        if command is None:
            return {"stdout": "", "stderr": "", **outputs}
        if urn.type == "command:remote:Command":
            return ssh.alone(remote.run(command, inputs, outputs, say), self.cancelled)
        return local.run(command, inputs, outputs, say, self.cancelled)

    def invoke(self, token: str, args: Tree) -> tuple[Tree, list[Failure]]:
        """`command:local:run`: the command runs in previews too."""
        shape = schema.FUNCTIONS.get(token)
        if shape is None:
            raise Refused(f"unknown function {token}; there is {', '.join(schema.FUNCTIONS)}")
        if failures := schema.faults(shape, args):
            return {}, failures
        if has_unknown(args):
            return {**args, **dict.fromkeys(STREAMS, UNKNOWN)}, []
        plain = reveal(args)
        values = local.run(
            plain["command"], plain, {}, lambda line: self.log("INFO", line, passing=True), self.cancelled
        )
        return schema.outputs(shape, args, values), []
