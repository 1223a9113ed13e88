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

# every figure of tests/bench/RESULTS.md, each against a peer or a floor in the same run
bench:
    python tests/bench/run.py

# pin what pyproject.toml asks for, with hashes (needs uv)
lock:
    uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --all-extras pyproject.toml -o requirements.lock
