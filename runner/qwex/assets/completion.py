"""Made by ``python -m qwex.cli.describe``: what completion knows of the command line. Not to be edited."""

COMMANDS: dict[str, tuple[str, dict[str, tuple[str, str]], tuple[str, ...]]] = {
    "": (
        "Run this directory's command here, or on any machine with an SSH server.",
        {
            "--version": (
                "",
                "Show the version.",
            ),
            "-V": (
                "",
                "Show the version.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (),
    ),
    "batch": (
        "Run a command in this directory's snapshot, here or elsewhere.",
        {
            "--on": (
                "PLACE",
                "local, user@host[:port], an ssh_config name or a named host.",
            ),
            "--detach": (
                "",
                "Submit, print the run's id and leave.",
            ),
            "-d": (
                "",
                "Submit, print the run's id and leave.",
            ),
            "--name": (
                "NAME",
                "A name to recognise it by.",
            ),
            "--cpus": (
                "NUMBER",
                "CPUs for one task.",
            ),
            "--mem": (
                "SIZE",
                "Memory for one task, as 512M or 4G.",
            ),
            "--gpus": (
                "GPUS",
                "GPUs for one task: 1, a100 or a100:2.",
            ),
            "--time": (
                "DURATION",
                "Longest time an attempt may run, as 90s, 30m or 1h30m.",
            ),
            "--priority": (
                "NUMBER",
                "Higher runs first.",
            ),
            "--retries": (
                "COUNT",
                "Attempts after the first one failed.",
            ),
            "--array": (
                "INDEXES",
                "Once per index ($QWEX_TASK_INDEX): 0-99, 0-99%10 (ten at a time), 1,5,9-12.",
            ),
            "--after": (
                "RUN[:ok|fail|any]",
                "Wait for a run to end. May be repeated.",
            ),
            "--env": (
                "NAME[=VALUE]",
                "A variable for the job. May be repeated.",
            ),
            "--env-file": (
                "FILE",
                "Variables from a file of NAME=VALUE lines. May be repeated.",
            ),
            "--secret": (
                "NAME",
                "A variable taken from the environment, never stored or shown. May be repeated.",
            ),
            "--out": (
                "PATTERN",
                "Which files are results; none: all that changed. May be repeated.",
            ),
            "--include": (
                "PATTERN",
                "Send ignored files that match. May be repeated.",
            ),
            "--shell": (
                "",
                "Run the command as a script of /bin/sh.",
            ),
            "--no-shell": (
                "",
                "Run the command as a script of /bin/sh.",
            ),
            "--dry-run": (
                "",
                "Show what would be sent and run; do nothing.",
            ),
            "--json": (
                "",
                "Print JSON.",
            ),
            "--sync-back": (
                "",
                "Put results into the working tree too, never over what was edited meanwhile.",
            ),
            "--no-sync-back": (
                "",
                "Put results into the working tree too, never over what was edited meanwhile.",
            ),
            "--on-interrupt": (
                "detach|cancel",
                "What the first Ctrl-C does to the run.",
            ),
            "--no-stdin": (
                "",
                "Do not pass standard input to the job.",
            ),
            "--yes": (
                "",
                "Go on where a person would be asked.",
            ),
            "-y": (
                "",
                "Go on where a person would be asked.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("COMMAND...",),
    ),
    "submit": (
        "Submit the jobs of a file: one, many, or a graph.",
        {
            "--on": (
                "PLACE",
                "Where to run them, whatever the file says.",
            ),
            "--dry-run": (
                "",
                "Show what would be sent and run; do nothing.",
            ),
            "--json": (
                "",
                "Print JSON.",
            ),
            "--yes": (
                "",
                "Go on where a person would be asked.",
            ),
            "-y": (
                "",
                "Go on where a person would be asked.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("FILE",),
    ),
    "rerun": (
        "Submit a run once more: same command, same place, same snapshot.",
        {
            "--fresh": (
                "",
                "Take a new snapshot of its directory.",
            ),
            "--json": (
                "",
                "Print JSON.",
            ),
            "--yes": (
                "",
                "Go on where a person would be asked.",
            ),
            "-y": (
                "",
                "Go on where a person would be asked.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("RUN",),
    ),
    "list": (
        "List runs, the newest first.",
        {
            "--user": (
                "USER",
                "Runs of this account; me for yours.",
            ),
            "--status": (
                "STATE",
                "A state, active or ended. May be repeated.",
            ),
            "--on": (
                "PLACE",
                "Runs of this place.",
            ),
            "--limit": (
                "COUNT",
                "At most so many.",
            ),
            "-n": (
                "COUNT",
                "At most so many.",
            ),
            "--all": (
                "",
                "However many there are.",
            ),
            "--json": (
                "",
                "Print JSON.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (),
    ),
    "status": (
        "Show all that is known of runs: state and why, attempts, place, command, results, times.",
        {
            "--json": (
                "",
                "Print JSON.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("RUN...",),
    ),
    "logs": (
        "Show what a run wrote, each stream on its own, byte for byte.",
        {
            "--follow": (
                "",
                "Go on until the run has ended.",
            ),
            "-f": (
                "",
                "Go on until the run has ended.",
            ),
            "--since": (
                "WHEN",
                "From then on: 10m (ago), 14:30 or 2025-11-23T14:30.",
            ),
            "--tail": (
                "LINES",
                "The last lines of each stream.",
            ),
            "-n": (
                "LINES",
                "The last lines of each stream.",
            ),
            "--attempt": (
                "NUMBER",
                "One attempt; else all.",
            ),
            "--resume": (
                "",
                "From where you stopped reading.",
            ),
            "--stdout": (
                "",
                "Only what it wrote to standard output.",
            ),
            "--stderr": (
                "",
                "Only what it wrote to standard error.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("RUN",),
    ),
    "why": (
        "Say in a sentence what a run waits for or why it ended as it did; then the evidence.",
        {
            "--json": (
                "",
                "Print JSON.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("RUN",),
    ),
    "wait": (
        "Wait until runs have ended, and end with the first exit code that is not zero.",
        {
            "--timeout": (
                "DURATION",
                "Give up after so long, as 90s or 2h.",
            ),
            "--json": (
                "",
                "Print JSON.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("RUN...",),
    ),
    "pull": (
        "Fetch the results of runs, whatever their size, and print the directory they are in.",
        {
            "--to": (
                "DIR",
                "Where to put them instead of qwex-runs/RUN.",
            ),
            "--sync-back": (
                "",
                "Put results into the working tree too, never over what was edited meanwhile.",
            ),
            "--no-sync-back": (
                "",
                "Put results into the working tree too, never over what was edited meanwhile.",
            ),
            "--json": (
                "",
                "Print JSON.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("RUN...",),
    ),
    "cancel": (
        "End runs, or elements of arrays: TERM first, KILL after the grace of the job.",
        {
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("RUN...",),
    ),
    "suspend": (
        "Stop running runs where they are, and hold those that wait, until `qwex resume`.",
        {
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("RUN...",),
    ),
    "resume": (
        "Let suspended runs go on.",
        {
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("RUN...",),
    ),
    "exec": (
        "Run a command inside a running job's directory and environment, and end with its exit code.",
        {
            "--no-terminal": (
                "",
                "No terminal for it, even from one.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (
            "RUN",
            "COMMAND...",
        ),
    ),
    "host": (
        "Name the machines to run on, and check them.",
        {
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (),
    ),
    "host add": (
        "Name a machine, after connecting to it once.",
        {
            "--slots": (
                "COUNT",
                "Tasks at a time; 0: as many as it has CPUs.",
            ),
            "--directory": (
                "PATH",
                "Qwex's directory there: absolute, or from the home directory.",
            ),
            "--login-shell": (
                "",
                "Start jobs from a login shell.",
            ),
            "--env": (
                "NAME=VALUE",
                "A variable for every job there. May be repeated.",
            ),
            "--no-check": (
                "",
                "Do not connect to it now.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (
            "NAME",
            "[USER@]HOST[:PORT]",
        ),
    ),
    "host list": (
        "List the named machines and the file that names each.",
        {
            "--json": (
                "",
                "Print JSON.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (),
    ),
    "host check": (
        "Connect to machines, all at once: to those named, or to every named one.",
        {
            "--json": (
                "",
                "Print JSON.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("HOST...",),
    ),
    "host remove": (
        "Take a machine's name out of config.toml.",
        {
            "--purge": (
                "",
                "Delete Qwex's directory there first.",
            ),
            "--yes": (
                "",
                "Go on where a person would be asked.",
            ),
            "-y": (
                "",
                "Go on where a person would be asked.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("HOST",),
    ),
    "init": (
        "Write a commented qwex.toml here: how to run this directory.",
        {
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (),
    ),
    "config": (
        "Show and change settings.",
        {
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (),
    ),
    "config show": (
        "Show every setting, its value here, and where that comes from.",
        {
            "--json": (
                "",
                "Print JSON.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (),
    ),
    "config get": (
        "Print the value of one setting.",
        {
            "--json": (
                "",
                "Print JSON.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("SETTING",),
    ),
    "config set": (
        "Write a setting to the user's config.toml, or with --project to qwex.toml.",
        {
            "--project": (
                "",
                "The project's qwex.toml, not the user's config.toml.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (
            "SETTING",
            "VALUE",
        ),
    ),
    "config path": (
        "Print where the file is, whether it exists or not.",
        {
            "--project": (
                "",
                "The project's qwex.toml, not the user's config.toml.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        (),
    ),
    "doctor": (
        "Examine this machine, and the hosts named; say what is broken and how to mend it.",
        {
            "--fix": (
                "",
                "Mend what can be mended safely.",
            ),
            "--json": (
                "",
                "Print JSON.",
            ),
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("HOST...",),
    ),
    "completion": (
        "Print the completion script for a shell, and on stderr how to install it.",
        {
            "--quiet": (
                "",
                "No notes on stderr.",
            ),
            "-q": (
                "",
                "No notes on stderr.",
            ),
            "--debug": (
                "",
                "Show a traceback with an error.",
            ),
            "--help": (
                "",
                "Show this message and exit.",
            ),
            "-h": (
                "",
                "Show this message and exit.",
            ),
        },
        ("bash|zsh|fish",),
    ),
}
STATES: tuple[str, ...] = (
    "queued",
    "held",
    "running",
    "suspended",
    "succeeded",
    "failed",
    "cancelled",
    "lost",
    "active",
    "ended",
)
SETTINGS: dict[str, str] = {
    "run.on": "Where to run: local, user@host[:port], an ssh_config name, a named host.",
    "run.cpus": "CPUs for one task; may be a fraction.",
    "run.mem": "Memory for one task; 0: not said.",
    "run.gpus": 'GPUs for one task: a number, "a100" or "a100:2".',
    "run.time": "Longest time an attempt may run; 0: no limit.",
    "run.priority": "Higher runs first.",
    "run.retries": "Attempts after the first one failed.",
    "run.env": "Variables every job gets.",
    "run.secrets": "Variables taken from the environment as secrets: never stored, never shown.",
    "run.shell": "Run the command through /bin/sh.",
    "run.out": "Which files are results (patterns as in .gitignore); none: all that changed.",
    "run.on_interrupt": "What the first Ctrl-C does to an attached run.",
    "workspace.include": "Ignored paths to send nevertheless (patterns as in .gitignore).",
    "workspace.large": "Above this Qwex says what is large and shows progress.",
    "results.directory": "Where results come home to, under the project.",
    "results.limit": "Larger results wait until `qwex pull` fetches them.",
    "results.sync_back": "Put results into the working tree as well.",
    "local.cpus": "CPUs local runs may use together. Unset: those of this machine.",
    "local.mem": "Memory local runs may use together. Unset: that of this machine.",
    "local.gpus": "GPUs local runs may use together. Unset: those of this machine.",
    "local.idle": "Time after which an idle local worker leaves.",
    "local.keep_days": "Days logs and results of ended local runs are kept.",
}
