"""The workshop of the lab's artifacts, with recipes that take no time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.lab.bundle import Bench, Bundle, Recipe
from tests.lab.bundle.errors import BundleError, Damaged, Failed, Missing, NoRoom
from tests.lab.bundle.workshop import Workshop
from tests.lab.waiting import until

ROOT = Path(__file__).parents[3]


def say(text: str, to: str = "file") -> Callable[[Bench], None]:
    def build(bench: Bench) -> None:
        (bench.out / to).write_text(text)

    return build


def upper(bench: Bench) -> None:
    (bench.out / "upper").write_text((bench.input("low") / "file").read_text().upper())


def never(bench: Bench) -> None:
    raise AssertionError(f"{bench.recipe.name} is built again")


def recipe(name: str, build: Callable[[Bench], None], *needs: str, version: str = "v1") -> Recipe:
    return Recipe(name, version, (), needs, build, place=name)


def workshop(cache: Path, *recipes: Recipe, room: int = 0) -> Workshop:
    return Workshop({each.name: each for each in recipes}, cache, room=room)


LOW, UP = recipe("low", say("a")), recipe("up", upper, "low")


def python(code: str) -> Callable[[Bench], None]:
    return lambda bench: bench.run([sys.executable, "-c", code])


def test_builds_what_is_missing_in_the_order_of_need_and_only_once(tmp_path: Path) -> None:
    bundle = workshop(tmp_path, UP, LOW).ready()
    assert bundle.path("up/upper").read_text() == "A"
    assert not list((tmp_path / "tmp").iterdir())
    again = workshop(tmp_path, replace(UP, build=never), replace(LOW, build=never))
    assert again.ready().root == bundle.root


def test_only_what_is_asked_for_and_what_that_needs(tmp_path: Path) -> None:
    shop = workshop(tmp_path, UP, LOW, recipe("other", never))
    assert shop.cached("up") is None
    shop.ready("up")
    assert shop.cached() is None
    found = shop.cached("up")
    assert found is not None
    assert found.path("low/file").is_file()
    with pytest.raises(Missing, match="has no other/file"):
        found.path("other/file")


def test_an_unknown_artifact_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no artifact middle; there are: up, low"):
        workshop(tmp_path, UP, LOW).ready("middle")


def test_needs_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a needs b, which no recipe makes"):
        workshop(tmp_path, recipe("a", upper, "b"))
    with pytest.raises(BundleError, match="circle: a → b → a"):
        workshop(tmp_path, recipe("a", upper, "b"), recipe("b", upper, "a"))


@pytest.mark.parametrize(
    "change",
    [{"version": "v2"}, {"arguments": ("x",)}, {"sums": {"file": "0" * 64}}],
    ids=["version", "arguments", "sums"],
)
def test_what_changes_a_key(tmp_path: Path, change: dict[str, object]) -> None:
    other = recipe("other", say("b"))
    before = workshop(tmp_path, UP, LOW, other).keys
    after = workshop(tmp_path, UP, replace(LOW, **change), other).keys  # type: ignore[arg-type]
    assert {name for name in before if before[name] != after[name]} == {"low", "up"}


def test_the_contents_names_and_modes_of_inputs_are_part_of_the_key(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    file = tree / "below" / "file"
    file.write_text("a")
    seen = set()

    def key() -> str:
        return workshop(tmp_path, replace(LOW, inputs=(tree,))).keys["low"]

    for change in (
        lambda: None,
        lambda: file.write_text("b"),
        lambda: file.chmod(0o755),
        lambda: file.rename(tree / "file"),
        lambda: (tree / "link").symlink_to("file"),
    ):
        change()
        assert key() not in seen
        seen.add(key())
    (tree / "some_test.go").write_text("tests do not count")
    (tree / ".hidden").write_text("")
    assert key() in seen
    tree.rename(tmp_path / "away")
    with pytest.raises(BundleError, match=r"low: its input .*tree is not there"):
        key()


def test_a_changed_pin_builds_anew_and_leaves_the_old_bundle_readable(tmp_path: Path) -> None:
    old = workshop(tmp_path, LOW).ready()
    new = workshop(tmp_path, replace(LOW, version="v2", build=say("b"))).ready()
    assert (old.path("low/file").read_text(), new.path("low/file").read_text()) == ("a", "b")
    assert (tmp_path / "bundle").resolve() == new.root


def test_prune_keeps_what_the_recipes_make(tmp_path: Path) -> None:
    old = workshop(tmp_path, LOW).ready()
    shop = workshop(tmp_path, replace(LOW, version="v2", build=say("b")))
    new = shop.ready()
    shop.prune()
    assert not old.root.exists()
    assert len(list((tmp_path / "store").iterdir())) == 1
    assert shop.cached() == new


def test_the_bundle_is_a_list_with_checksums_over_hard_links(tmp_path: Path) -> None:
    shop = workshop(tmp_path, replace(LOW, source="here", stands_in="k3s"), replace(UP, place=None))
    bundle = shop.ready()
    listed = json.loads(bundle.path("bundle.json").read_text())
    assert listed["schema"] == 1
    (row,) = listed["artifacts"]
    assert row == {
        "name": "low",
        "version": "v1",
        "kind": "file",
        "path": "low/file",
        "sha256": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        "size": 1,
        "source": "here",
        "stands_in": "k3s",
    }
    found = shop.find("low")
    assert found is not None
    assert bundle.path("low/file").samefile(found.out / "file")
    checked = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=bundle.root, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.splitlines() == ["bundle.json: OK", "low/file: OK"]
    assert bundle.check() == 2


def test_a_file_taken_from_the_bundle_comes_back(tmp_path: Path) -> None:
    shop = workshop(tmp_path, LOW)
    bundle = shop.ready()
    bundle.path("low/file").unlink()
    assert shop.ready().path("low/file").read_text() == "a"


def test_two_artifacts_may_not_make_the_same_file(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="two artifacts make low/file"):
        workshop(tmp_path, LOW, replace(recipe("other", say("b")), place="low")).ready()


def _flip(path: Path, *, keep_time: bool) -> None:
    status = path.stat()
    path.chmod(0o644)
    path.write_text("b")
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_flipped_byte_stops_with_the_name_of_the_file(tmp_path: Path) -> None:
    shop = workshop(tmp_path, LOW, UP)
    shop.ready()
    found = shop.find("low")
    assert found is not None
    _flip(found.out / "file", keep_time=False)
    for use in (shop.ready, shop.cached):
        with pytest.raises(Damaged, match=f"{found.out}/file does not match its checksum"):
            use()


def test_a_byte_that_rots_unseen_is_found_by_the_whole_check(tmp_path: Path) -> None:
    shop = workshop(tmp_path, LOW)
    bundle = shop.ready()
    _flip(bundle.path("low/file"), keep_time=True)
    assert shop.cached() == bundle
    with pytest.raises(Damaged, match=r"low-\w+/out/file does not match its checksum"):
        shop.find("low", whole=True)
    with pytest.raises(Damaged, match="low/file does not match its checksum"):
        bundle.check()


def test_a_cache_that_was_copied_is_checked_once_and_then_trusted(tmp_path: Path) -> None:
    shop = workshop(tmp_path, LOW)
    shop.ready()
    found = shop.find("low")
    assert found is not None
    os.utime(found.out / "file", (0, 0))
    stamps = (found.entry / "seen.json").read_text()
    assert shop.cached() is not None
    assert (found.entry / "seen.json").read_text() != stamps


@pytest.mark.parametrize("lost", ["out/file", "SHA256SUMS"])
def test_a_file_that_is_gone_from_the_store_is_named(tmp_path: Path, lost: str) -> None:
    shop = workshop(tmp_path, LOW)
    shop.ready()
    found = shop.find("low")
    assert found is not None
    (found.entry / lost).unlink()
    with pytest.raises(Damaged, match=f"{lost} is gone"):
        shop.ready()


def test_a_wrong_pinned_checksum_stops_with_the_name_of_the_file(tmp_path: Path) -> None:
    shop = workshop(tmp_path, replace(LOW, sums={"file": "0" * 64}))
    with pytest.raises(Damaged, match=r"low v1: file has the SHA-256 ca978112\w+, pinned is 0{64}"):
        shop.ready()
    assert shop.find("low") is None
    with pytest.raises(Damaged, match="other has a pinned checksum but was not made"):
        workshop(tmp_path, replace(LOW, sums={"other": "0" * 64})).ready()


def test_only_regular_files_make_an_artifact(tmp_path: Path) -> None:
    def link(bench: Bench) -> None:
        (bench.out / "link").symlink_to("/etc/passwd")

    with pytest.raises(Failed, match="low v1: link is neither"):
        workshop(tmp_path, recipe("low", link)).ready()
    with pytest.raises(Failed, match="low v1: its recipe made no file"):
        workshop(tmp_path, recipe("low", lambda bench: None)).ready()


def test_a_failed_build_tells_the_end_of_its_log_and_stops_the_others(tmp_path: Path) -> None:
    slow = python(f"import pathlib, time; pathlib.Path({str(tmp_path / 'begun')!r}).touch(); time.sleep(600)")

    def bad(bench: Bench) -> None:
        until("the other to begin", (tmp_path / "begun").exists, within=20)
        bench.run([sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"])

    with pytest.raises(
        Failed, match=r"bad v1: .*python.* ended with exit status 3; .*build-logs/bad.log ends with\n(.*\n)*.*wrong"
    ):
        workshop(tmp_path, recipe("slow", slow), recipe("bad", bad)).ready()
    assert "what went wrong" in (tmp_path / "build-logs" / "bad.log").read_text()
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ("write /x: no space left on device", NoRoom, "low v1: no room left on the disk of"),
        ("verifying a@v1: checksum mismatch", Damaged, "low v1: verifying a@v1: checksum mismatch"),
        ("dial tcp: lookup failed", Failed, "hint: a download failed; run it again"),
    ],
)
def test_known_causes_are_told_in_one_line(tmp_path: Path, said: str, kind: type[BundleError], told: str) -> None:
    with pytest.raises(kind, match=told):
        workshop(tmp_path, recipe("low", python(f"raise SystemExit({said!r})"))).ready()


def test_no_room(tmp_path: Path) -> None:
    with pytest.raises(NoRoom, match=r"MiB free, a build needs"):
        workshop(tmp_path, LOW, room=1 << 60).ready()

    def full(bench: Bench) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(bench.out / "file"))

    with pytest.raises(NoRoom, match="no room left on the disk of"):
        workshop(tmp_path, recipe("low", full)).ready()


def test_a_program_that_is_not_installed_is_named_before_anything_is_built(tmp_path: Path) -> None:
    shop = workshop(tmp_path, recipe("first", never), replace(LOW, requires=("no-such-program", "sh")))
    with pytest.raises(Missing, match=r"cannot be built: install no-such-program$"):
        shop.ready()
    with pytest.raises(Missing, match="low v1 needs no-such-program, which is not installed"):
        workshop(tmp_path, recipe("low", lambda bench: bench.run(["no-such-program"]))).ready()


@pytest.mark.parametrize(("have", "told"), [("1.9.7", "go is 1.9.7"), (None, "install go")])
def test_a_go_that_is_old_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, have: str | None, told: str
) -> None:
    programs, module = tmp_path / "bin", tmp_path / "module"
    programs.mkdir()
    module.mkdir()
    (module / "go.mod").write_text("module x\n\ngo 1.26.1\n")
    if have is not None:
        (programs / "go").write_text(f"#!/bin/sh\necho go version go{have} linux/amd64\n")
        (programs / "go").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(Missing, match=told):
        workshop(tmp_path / "cache", replace(LOW, build=never, inputs=(module,), requires=("go",))).ready()


def test_answers_are_read_and_the_environment_is_added_to(tmp_path: Path) -> None:
    def build(bench: Bench) -> None:
        code = "import os; print(os.environ['COLOUR'], 'PATH' in os.environ, os.getcwd())"
        (bench.out / "file").write_bytes(bench.read([sys.executable, "-c", code], env={"COLOUR": "red"}, cwd=tmp_path))

    assert workshop(tmp_path, recipe("low", build)).ready().text("low/file") == f"red True {tmp_path}"


BUILDER = """
import pathlib, sys
from tests.lab.bundle import Recipe
from tests.lab.bundle.workshop import Workshop

here = pathlib.Path(__file__).parent
CODE = f'''
import fcntl, pathlib, time
held = open({str(here / "held")!r}, "w")
fcntl.flock(held, fcntl.LOCK_EX)
pathlib.Path("../out/file").write_text("half")
pathlib.Path({str(here / "begun")!r}).touch()
deadline = time.monotonic() + 60
while not pathlib.Path({str(here / "go-on")!r}).exists() and time.monotonic() < deadline:
    time.sleep(0.01)
pathlib.Path("../out/file").write_text("whole")
'''

def build(bench):
    bench.run([sys.executable, "-c", CODE])

recipe = Recipe("slow", "v1", (), (), build, place="slow")
print(Workshop({"slow": recipe}, here / "cache", room=0).ready().root)
"""


class Elsewhere:
    """The same build in processes of its own; it writes half of its file, then waits for `go-on`."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.begun = directory, directory / "begun"
        (directory / "builder.py").write_text(BUILDER)

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.directory / "builder.py")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def alone(self) -> bool:
        """Whether no process of a build is left: each holds a lock as long as it lives."""
        with (self.directory / "held").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def go_on(self) -> None:
        (self.directory / "go-on").touch()


def test_a_build_that_is_killed_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    elsewhere = Elsewhere(tmp_path)
    with elsewhere.start() as first:
        until("the build to begin", elsewhere.begun.exists, within=20, every=0.02)
        assert not elsewhere.alone()
        first.send_signal(signal.SIGKILL)
    (half,) = (tmp_path / "cache" / "tmp").glob("slow@*/out/file")
    assert half.read_text() == "half"
    until("the killed builder's program to die with it", elsewhere.alone, within=20, every=0.02)
    assert not list((tmp_path / "cache" / "store").iterdir())
    elsewhere.go_on()
    with elsewhere.start() as second:
        out, told = second.communicate(timeout=60)
    assert second.returncode == 0, told
    assert Bundle(Path(out.strip())).path("slow/file").read_text() == "whole"
    assert not list((tmp_path / "cache" / "tmp").iterdir())


def test_a_second_builder_waits_says_so_and_builds_nothing(tmp_path: Path) -> None:
    elsewhere = Elsewhere(tmp_path)
    with elsewhere.start() as first:
        until("the build to begin", elsewhere.begun.exists, within=20, every=0.02)
        elsewhere.begun.unlink()
        with elsewhere.start() as second:
            assert second.stderr is not None
            assert second.stderr.readline() == "[1/1] slow v1 …\n"
            assert second.stderr.readline() == f"slow v1: process {first.pid} is building it; waiting\n"
            elsewhere.go_on()
            assert second.stderr.readline() == "[1/1] slow v1  built by another process\n"
            assert second.wait(20) == first.wait(20) == 0
    assert not elsewhere.begun.exists()


def test_an_interrupted_build_ends_its_programs(tmp_path: Path) -> None:
    elsewhere = Elsewhere(tmp_path)
    with elsewhere.start() as first:
        until("the build to begin", elsewhere.begun.exists, within=20, every=0.02)
        first.send_signal(signal.SIGINT)
        _, told = first.communicate(timeout=20)
    assert "KeyboardInterrupt" in told
    assert elsewhere.alone()
    assert not list((tmp_path / "cache" / "tmp").iterdir())
