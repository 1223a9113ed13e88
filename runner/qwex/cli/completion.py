"""``qwex completion``: completion scripts."""

from __future__ import annotations

from typing import Annotated

import typer

from qwex.cli.complete import SHELLS
from qwex.cli.output import write_text
from qwex.cli.shape import command, terminal_of
from qwex.errors import UnknownName

__all__ = ["SCRIPTS", "app"]

app, _command = command()

SCRIPTS = {
    "bash": r"""# Completion of qwex for bash.
_qwex() {
    local IFS=$'\n' first
    COMPREPLY=($(QWEX_COMPLETE=bash command qwex "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null))
    first=${COMPREPLY[0]-}
    case $first in
        :files) COMPREPLY=() ;;
        :dirs) COMPREPLY=($(compgen -d -- "${COMP_WORDS[COMP_CWORD]}")) ;;
        :command*)
            COMPREPLY=()
            if declare -F _command_offset >/dev/null; then
                IFS=$' \t\n'
                _command_offset "${first#:command }"
            elif ((COMP_CWORD == ${first#:command })); then
                COMPREPLY=($(compgen -c -- "${COMP_WORDS[COMP_CWORD]}"))
            fi
            ;;
        *) compopt +o default 2>/dev/null ;;
    esac
    return 0
}
complete -o default -F _qwex qwex
""",
    "zsh": r"""#compdef qwex
# Completion of qwex for zsh.
_qwex() {
    local -a lines
    local count
    lines=("${(@f)$(QWEX_COMPLETE=zsh command qwex "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    case $lines[1] in
        :files) _files ;;
        :dirs) _files -/ ;;
        :command*)
            count=${lines[1]#:command }
            shift $count words
            (( CURRENT -= count ))
            _normal
            ;;
        '') return 1 ;;
        *) _describe qwex lines ;;
    esac
}
if [ "$funcstack[1]" = _qwex ]; then
    _qwex "$@"
else
    compdef _qwex qwex
fi
""",
    "fish": r"""# Completion of qwex for fish.
function __qwex_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines (env QWEX_COMPLETE=fish qwex $words[2..-1] 2>/dev/null)
    switch "$lines[1]"
        case ':files'
            __fish_complete_path (commandline -ct)
        case ':dirs'
            __fish_complete_directories (commandline -ct)
        case ':command*'
            set -l count (string replace ':command ' '' -- $lines[1])
            set -l rest $words[(math $count + 1)..-1]
            complete -C (string join ' ' -- (string escape -- $rest[1..-2]) $rest[-1])
        case '*'
            printf '%s\n' $lines
    end
end
complete -c qwex -f -a '(__qwex_complete)'
""",
}
_INSTALL = {
    "bash": 'in ~/.bashrc: source <(qwex completion bash)    (macOS\'s bash 3.2: eval "$(qwex completion bash)")',
    "zsh": "in ~/.zshrc, after compinit: source <(qwex completion zsh)",
    "fish": "qwex completion fish > ~/.config/fish/completions/qwex.fish",
}


@_command
def completion(ctx: typer.Context, shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish")]) -> int:
    """Print the completion script for a shell, and on stderr how to install it."""
    if shell not in SCRIPTS:
        raise UnknownName("shell", shell, SHELLS)
    write_text(SCRIPTS[shell])
    terminal_of(ctx).note(f"to have it always, {_INSTALL[shell]}")
    return 0
