"""Answers to shells that complete a line: quick, so nothing of typer, config or the store is imported here.

A script that ``qwex completion`` prints calls ``QWEX_COMPLETE=SHELL qwex WORD...``, the last word being the one to complete (bash:
the line up to the cursor, and its word breaks). The answer is one candidate a line, or a first line that leaves it to the shell:
``:files``, ``:dirs``, or ``:command N`` for the command line that begins after N words.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from qwex.assets.completion import COMMANDS, SETTINGS, STATES
from qwex.cli.output import write

__all__ = ["SHELLS", "answer", "candidates", "split", "state_directory"]

SHELLS = ("bash", "zsh", "fish")
_MOST_RUNS = 50
Candidate = tuple[str, str]


def answer(shell: str, words: list[str]) -> int:
    """Print what ``words`` may go on with, as ``shell`` reads it."""
    breaks = ""
    if shell == "bash":
        line, breaks = words[0], words[1] if len(words) > 1 else ""
        words = split(line)[1:]
    found = candidates(words)
    if isinstance(found, str):
        return write(f":{found}\n")
    last = words[-1] if words else ""
    fitting = [(value, about) for value, about in found if value.startswith(last)]
    if shell == "zsh":
        lines = [value.replace(":", "\\:") + f":{about}" for value, about in fitting]
    elif shell == "fish":
        lines = [f"{value}\t{about}" for value, about in fitting]
    else:
        # bash replaces only what follows the last of its word breaks.
        kept = max((last.rfind(sign) + 1 for sign in breaks if sign in ":=@"), default=0)
        lines = [value[kept:] for value, _ in fitting]
    return write("".join(f"{line}\n" for line in lines))


def split(line: str) -> list[str]:
    """The words of a shell line up to the cursor, quotes taken away; the last one may be empty or unfinished."""
    words, word, quote, escaped = [], "", "", False
    for sign in line:
        if escaped:
            word, escaped = word + sign, False
        elif sign == "\\" and quote != "'":
            escaped = True
        elif quote:
            word, quote = (word, "") if sign == quote else (word + sign, quote)
        elif sign in "'\"":
            quote = sign
        elif sign in " \t\n":
            if word:
                words.append(word)
            word = ""
        else:
            word += sign
    return [*words, word]


def candidates(words: list[str]) -> list[Candidate] | str:
    """What the last word may become, with a description each, or a word that leaves it to the shell."""
    *before, last = words or [""]
    name, seen, at, dashes = "", 0, 0, False
    while at < len(before):
        word = before[at]
        _, options, arguments = COMMANDS[name]
        below = f"{name} {word}".strip()
        if word == "--" and not dashes:
            dashes = True
        elif word.startswith("-") and not dashes:
            if options.get(word, ("",))[0]:
                at += 1
                if at == len(before):
                    return _values(options[word][0], last, "")
        elif below in COMMANDS and not seen:
            name = below
        else:
            seen += 1
            if arguments and arguments[min(seen, len(arguments)) - 1] == "COMMAND...":
                return f"command {at + 1}"
        at += 1
    _, options, arguments = COMMANDS[name]
    if last.startswith("-") and not dashes:
        option, equals, _ = last.partition("=")
        if equals and options.get(option, ("",))[0]:
            return _values(options[option][0], last[len(option) + 1 :], f"{option}=")
        return [(option, about) for option, (_, about) in options.items() if option.startswith("--")]
    below_it = [one for one in COMMANDS if one.rpartition(" ")[0] == name and one]
    if below_it:
        return [(one.rpartition(" ")[2], COMMANDS[one][0]) for one in below_it]
    if not arguments or (seen >= len(arguments) and not arguments[-1].endswith("...")):
        return []
    kind = arguments[min(seen, len(arguments) - 1)]
    return f"command {len(before) + 1}" if kind == "COMMAND..." else _values(kind, last, "")


def _values(kind: str, last: str, prefix: str) -> list[Candidate] | str:
    """Values for the metavar ``kind``."""
    kind = kind.removesuffix("...")
    if kind in {"FILE", "DIR"}:
        return "files" if kind == "FILE" else "dirs"
    found: list[Candidate]
    if kind in {"RUN", "RUN[:ok|fail|any]"}:
        run, colon, _ = last.partition(":")
        if colon and kind != "RUN":
            found = [(f"{run}:{one}", "") for one in ("ok", "fail", "any")]
        else:
            found = [("last", "the newest run"), *_runs(last)]
    elif kind in {"PLACE", "HOST"}:
        found = [("local", "this machine")] if kind == "PLACE" else []
        found += [(name, "a named host") for name in _named_hosts()]
        found += [(name, "from ssh_config") for name in _ssh_names()] if kind == "PLACE" else []
    elif kind == "STATE":
        found = [(one, "") for one in STATES]
    elif kind == "SETTING":
        found = [(one, about) for one, about in SETTINGS.items()]
    elif kind == "USER":
        found = [("me", "your runs")]
    else:
        found = [(one, "") for one in kind.split("|")] if "|" in kind else []
    return [(prefix + value, about) for value, about in dict(found).items()]


def _directory(variable: str, fallback: str) -> str:
    """As ``config.Paths`` finds it, which a test compares."""
    named = os.environ.get(variable, "")
    home = os.environ.get("HOME") or os.path.expanduser("~")
    return os.path.join(named if os.path.isabs(named) else os.path.join(home, fallback), "qwex")


def state_directory() -> str:
    """Where the records of runs are."""
    return _directory("XDG_STATE_HOME", ".local/state")


def _runs(prefix: str) -> list[Candidate]:
    """The newest runs that begin so. A database that cannot be read now offers none: a prompt is no place for errors."""
    file = os.path.join(state_directory(), "runs.db")
    if not os.path.exists(file):
        return []
    import sqlite3

    quoted = file.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    try:
        database = sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, timeout=0.2)
        try:
            query = "SELECT id, state, place FROM runs WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT ?"
            rows = database.execute(query, (prefix, prefix + "{", _MOST_RUNS)).fetchall()
        finally:
            database.close()
    except sqlite3.Error:
        return []
    return [(run_id, f"{state} on {_plain(place)}") for run_id, state, place in rows]


def _plain(value: object) -> str:
    return str(value) if isinstance(value, str) and value.isprintable() else "?"


def _named_hosts() -> Iterator[str]:
    """Names in ``[hosts.NAME]`` of the user's and the project's file."""
    files = [os.path.join(_directory("XDG_CONFIG_HOME", ".config"), "config.toml")]
    here = os.getcwd()
    while not os.path.exists(os.path.join(here, "qwex.toml")) and here != os.path.dirname(here):
        here = os.path.dirname(here)
    files.append(os.path.join(here, "qwex.toml"))
    for file in files:
        if not os.path.exists(file):
            continue
        import tomllib

        try:
            with open(file, "rb") as content:
                hosts = tomllib.load(content).get("hosts")
        except (OSError, ValueError):  # `qwex` itself says what is wrong with it
            continue
        if isinstance(hosts, dict):
            yield from hosts


def _ssh_names() -> Iterator[str]:
    """Names without wildcards on the Host lines of ``~/.ssh/config``."""
    try:
        with open(os.path.expanduser("~/.ssh/config"), encoding="utf-8", errors="replace") as content:
            lines = content.read().splitlines()
    except OSError:
        return
    for line in lines:
        word, *names = line.replace("=", " ", 1).split() or [""]
        if word.lower() == "host":
            yield from (name for name in names if not set(name) & set('*?!"'))
