"""Settings are documented, and what `qwex init` writes can be used."""

from __future__ import annotations

import re
from pathlib import Path

from qwex.assets import text
from qwex.config import HOST_FIELDS, SETTINGS, load
from qwex.services.starting import init

DOCUMENT = (Path(__file__).parents[3] / "runner/docs/settings.md").read_text()


def test_every_setting_is_documented_as_it_is() -> None:
    rows = {
        cells[0].strip("`"): cells
        for line in DOCUMENT.splitlines()
        if line.startswith("| `") and len(cells := [cell.strip() for cell in line.strip("|").split(" | ")]) == 5
    }
    assert rows.keys() == {setting.name for setting in SETTINGS}
    for setting in SETTINGS:
        assert rows[setting.name][3].strip("`") == (setting.env or "")
        assert rows[setting.name][4] == setting.doc


def test_every_field_of_a_host_is_documented() -> None:
    assert [name for name, (_, doc) in HOST_FIELDS.items() if f"| `{name}` | {doc} |" not in DOCUMENT] == []


def test_template_says_nothing_until_it_is_edited(tmp_path: Path, home: Path) -> None:
    file = init(tmp_path)
    settings = load(tmp_path, {"HOME": str(home)})
    assert (settings.files, settings.hosts) == ((file,), {})
    assert [setting.name for setting in SETTINGS if settings.get(setting.name) != setting.default] == []


def test_template_holds_when_every_line_is_used(tmp_path: Path, home: Path) -> None:
    (tmp_path / "qwex.toml").write_text(re.sub(r"^# (?=\[|\w+ = )", "", text("qwex.toml"), flags=re.MULTILINE))
    settings = load(tmp_path, {"HOME": str(home)})
    shown = {setting.name for setting in SETTINGS if settings.source(setting.name) != "default"}
    assert shown == {setting.name for setting in SETTINGS if setting.section != "local"}
    assert list(settings.hosts) == ["gpu1"]
