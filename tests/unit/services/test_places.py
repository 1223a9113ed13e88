"""Names after ``--on``."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwex.errors import UnknownName, UsageError
from qwex.model.places import Place
from qwex.services.context import Context
from qwex.services.places import LOCAL, known, parse_address, resolve


@pytest.fixture
def ssh_config(home: Path) -> None:
    (home / ".ssh/conf.d").mkdir(parents=True)
    (home / ".ssh/config").write_text(
        "Include conf.d/*\nInclude ~/.ssh/gone\n"
        'Host bastion "odd name"\n  HostName b.example.org\nhost=lab-* !lab-9 !secret\nHost *\n  User x\n'
    )
    (home / ".ssh/conf.d/a").write_text("Host included\n")


@pytest.mark.usefixtures("ssh_config")
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("local", LOCAL),
        ("gpu1", Place("gpu1", "ssh", "10.0.0.7")),
        ("ada@box", Place("ada@box", "ssh", "box", "ada")),
        ("ada@box:2222", Place("ada@box:2222", "ssh", "box", "ada", 2222)),
        ("ada@[fe80::1]:22", Place("ada@[fe80::1]:22", "ssh", "fe80::1", "ada", 22)),
        ("ada@::1", Place("ada@::1", "ssh", "::1", "ada")),
        ("bastion", Place("bastion", "ssh", "bastion")),
        ("included", Place("included", "ssh", "included")),
        ("lab-3", Place("lab-3", "ssh", "lab-3")),
    ],
)
async def test_resolve(ctx: Context, name: str, place: Place) -> None:
    assert resolve(ctx, name) == place
    assert resolve(ctx, place.name) == place


@pytest.mark.usefixtures("ssh_config")
@pytest.mark.parametrize("name", ["gpu2", "lab-9", "box", ""])
async def test_unknown_names_list_the_known(ctx: Context, name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        resolve(ctx, name)
    assert {"local", "gpu1", "bastion", "included"} <= set(caught.value.known)
    assert f"USER@{name}" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text", ["@box", "ada@", "ada@box:x", "ada@box:99999", "ada@-box", "-l@box", "ada@bo x", "ada@[::1"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="write user@host"):
        parse_address(text)


@pytest.mark.usefixtures("ssh_config")
async def test_known(ctx: Context) -> None:
    assert [place.name for place in known(ctx)] == ["local", "gpu1", "included", "bastion", "odd name"]
