# Recipes for those who work on Qwex. `just` alone: lint, types, unit tests.
# They use the environment that is active, or .venv beside this file (README, second command, makes it).

export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

default: lint types test-unit

# style, formatting, layers
lint:
    ruff check
    ruff format --check
    lint-imports

types:
    mypy

# hermetic and quick
test-unit:
    pytest -q tests/unit

# everything that runs without root
test:
    pytest

# mend what can be mended by a tool, and remake what is generated
fix:
    ruff check --fix
    ruff format
    python -m qwex.cli.describe

# the two promises of the relay on real processes: here, and over SSH; ends with a line of figures
prove-relay:
    python tests/e2e/prove_relay.py

# what the lab is made of, from pinned sources into ~/.cache/qwex-lab: 25 minutes once, then seconds
lab-build *NAMES:
    python -m tests.lab build {{ NAMES }}

# a lab that stays: a two-node cluster with Kueue (needs root and Docker)
lab-up *OPTIONS:
    python -m tests.lab up {{ OPTIONS }}

# remove it, and what killed labs left behind
lab-down *OPTIONS:
    python -m tests.lab down {{ OPTIONS }}

# log in to one of its machines
lab-shell NAME *COMMAND:
    python -m tests.lab shell {{ NAME }} {{ COMMAND }}

# what is up
lab-status *OPTIONS:
    python -m tests.lab status {{ OPTIONS }}

# machines, tailnet, cluster, Pulumi, Lima: that all of it works here; ends with a line of figures
prove-lab:
    python tests/lab/prove.py

# every figure of tests/bench/RESULTS.md, each against a peer or a floor in the same run
bench:
    python tests/bench/run.py

# pin what pyproject.toml asks for, with hashes (needs uv)
lock:
    uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --all-extras pyproject.toml -o requirements.lock
