"""Replaces itself by a command, with variables that some shells would drop: run as a script, by path.

``launcher.py ENVIRONMENT-FILE COMMAND [ARGUMENT...]``. Used where a variable's name is none for a shell (``my.token``, exported bash
functions) or the command begins with a dash. Exits with 127 or 126 and a message, as a shell does, when the command cannot be run.
"""

import os
import sys


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        for entry in file.read().split(b"\0"):
            name, equals, value = entry.partition(b"=")
            if equals and name and name not in os.environb:
                os.environb[name] = value
    command = sys.argv[2:]
    try:
        os.execvp(command[0], command)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        os.write(2, os.fsencode(f"qwex: {command[0]}: {'not found' if missing else error.strerror}\n"))
        os._exit(127 if missing else 126)


if __name__ == "__main__":
    main()
