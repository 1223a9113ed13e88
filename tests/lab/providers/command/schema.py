"""What the command provider's resources take and give, and the check and diff that follow from it.

From the types in `provider/pkg/provider` of pulumi-command 1.2.1.
"""

from dataclasses import dataclass
from typing import Any, Final

from tests.lab.providers.provider import Change, Diff, Failure, PropertyChange, path_text
from tests.lab.providers.wire import MARK, UNKNOWN, Secret, Tree, has_secret, has_unknown, reveal


@dataclass(frozen=True)
class Shape:
    """A resource's or function's inputs by name, with the Python types of their values; `*` marks the required ones."""

    inputs: dict[str, tuple[type, ...]]
    required: frozenset[str]
    outputs: tuple[str, ...] = ()
    replacing: frozenset[str] = frozenset()
    secret: frozenset[str] = frozenset()


NO_ASSETS: Final = ("assetPaths", "archivePaths")
LOGGING: Final = ("stdout", "stderr", "stdoutAndStderr", "none")

_TEXT: Final = (str,)
_NUMBER: Final = (int, float)

CONNECTION: Final[dict[str, tuple[type, ...]]] = {
    "host": _TEXT,
    "user": _TEXT,
    "password": _TEXT,
    "port": _NUMBER,
    "privateKey": _TEXT,
    "privateKeyPassword": _TEXT,
    "agentSocketPath": _TEXT,
    "dialErrorLimit": _NUMBER,
    "perDialTimeout": _NUMBER,
    "hostKey": _TEXT,
}
CONNECTION_DEFAULTS: Final[Tree] = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15}
CONNECTION_SECRETS: Final = ("password", "privateKey", "privateKeyPassword")

_RUN: Final[dict[str, tuple[type, ...]]] = {
    "stdin": _TEXT,
    "logging": _TEXT,
    "environment": (dict,),
    "addPreviousOutputInEnv": (bool,),
}
_LOCAL: Final = {**_RUN, "interpreter": (list,), "dir": _TEXT, "assetPaths": (list,), "archivePaths": (list,)}
_LIFE: Final = {"triggers": (list,), "create": _TEXT, "update": _TEXT, "delete": _TEXT}
_STREAMS: Final = ("stdout", "stderr")

RESOURCES: Final = {
    "command:local:Command": Shape({**_LIFE, **_LOCAL}, frozenset(), _STREAMS, frozenset({"triggers"})),
    "command:remote:Command": Shape(
        {**_LIFE, **_RUN, "connection": (dict,)},
        frozenset({"connection"}),
        _STREAMS,
        frozenset({"triggers"}),
        frozenset({"connection"}),
    ),
    "command:remote:CopyToRemote": Shape(
        {"connection": (dict,), "triggers": (list,), "source": (dict,), "remotePath": _TEXT},
        frozenset({"connection", "source", "remotePath"}),
        replacing=frozenset({"triggers"}),
        secret=frozenset({"connection"}),
    ),
    "command:remote:CopyFile": Shape(
        {"connection": (dict,), "triggers": (list,), "localPath": _TEXT, "remotePath": _TEXT},
        frozenset({"connection", "localPath", "remotePath"}),
        replacing=frozenset({"connection", "triggers", "localPath", "remotePath"}),
        secret=frozenset({"connection"}),
    ),
}
FUNCTIONS: Final = {"command:local:run": Shape({**_LOCAL, "command": _TEXT}, frozenset({"command"}), _STREAMS)}


def faults(shape: Shape, news: Tree) -> list[Failure]:
    """What is missing, unheard of or of the wrong type, by property."""
    found = _faults("", shape.inputs, shape.required, news)
    plain = reveal(news)
    for key in NO_ASSETS:
        if key in shape.inputs and plain.get(key):
            found.append(Failure(key, f"{key} is not supported: pulumi-resource-command is stood in for here"))
    if isinstance(plain.get("logging"), str) and plain["logging"] not in LOGGING:
        found.append(Failure("logging", f"logging is one of {', '.join(LOGGING)}, not {plain['logging']!r}"))
    if isinstance(plain.get("connection"), dict):
        required = frozenset({"host"})
        found += _faults("connection.", {**CONNECTION, "proxy": (dict,)}, required, plain["connection"])
        if isinstance(plain["connection"].get("proxy"), dict):
            found += _faults("connection.proxy.", CONNECTION, required, plain["connection"]["proxy"])
    source = plain.get("source")
    if isinstance(source, dict) and (MARK not in source or not ({"path", "text"} & set(source))):
        found.append(Failure("source", "source must be a file or text asset, or a file archive"))
    return found


def _faults(prefix: str, types: dict[str, tuple[type, ...]], required: frozenset[str], bag: Tree) -> list[Failure]:
    found = [
        Failure(f"{prefix}{key}", f"missing required property {prefix}{key}") for key in required if key not in bag
    ]
    for key, given in bag.items():
        value = given.value if isinstance(given, Secret) else given
        if key not in types:
            found.append(Failure(f"{prefix}{key}", f"an unexpected argument {prefix}{key} was provided"))
        elif value is not UNKNOWN and (
            not isinstance(value, types[key]) or (isinstance(value, bool) and bool not in types[key])
        ):
            wanted = " or ".join(kind.__name__ for kind in types[key])
            found.append(Failure(f"{prefix}{key}", f"{prefix}{key} must be {wanted}, not {type(value).__name__}"))
    return found


def complete(shape: Shape, news: Tree) -> Tree:
    """The inputs with a connection's defaults, and secret what always is."""
    inputs = {**news}
    given = news.get("connection")
    connection = given.value if isinstance(given, Secret) else given
    if "connection" in shape.inputs and isinstance(connection, dict):
        inputs["connection"] = _connection(connection)
    for key in shape.secret:
        if key in inputs and not isinstance(inputs[key], Secret):
            inputs[key] = Secret(inputs[key])
    return inputs


def _connection(given: Tree) -> Tree:
    full = {**CONNECTION_DEFAULTS, **given}
    for key in CONNECTION_SECRETS:
        if key in full and not isinstance(full[key], Secret):
            full[key] = Secret(full[key])
    if isinstance(full.get("proxy"), dict):
        full["proxy"] = _connection(full["proxy"])
    return full


def diff(shape: Shape, state: Tree, news: Tree) -> Diff:
    """The inputs that differ from those of the last run. A change of the triggers makes the resource anew."""
    old, new = reveal(state), reveal(news)
    changes: dict[str, PropertyChange] = {}
    for key in shape.inputs:
        before, after = old.get(key), new.get(key)
        if before == after and not has_unknown(after):
            continue
        change = Change.ADD if before is None else Change.DELETE if after is None else Change.UPDATE
        changes[path_text((key,))] = PropertyChange(change, key in shape.replacing)
    return Diff(changes)


def outputs(shape: Shape, inputs: Tree, values: Tree) -> Tree:
    """The state of a resource: its inputs and outputs, these secret as soon as any input is."""
    secret = has_secret(inputs)
    return {**inputs, **{key: _hidden(values.get(key), secret) for key in shape.outputs if key in values}}


def _hidden(value: Any, secret: bool) -> Any:
    return Secret(value) if secret else value
