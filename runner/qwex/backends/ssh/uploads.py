"""How a tree gets there: the difference to a tree the far side has, as a script and a tar.

The far side clones the base by hard links, runs the lines ``before`` (what must be out of the way, what moves to ``stage/``),
unpacks a plain ustar of ``t/…`` and ``stage/…`` and at last runs ``after``, the tar's last member: what ustar cannot say.
Content that is in the base under another path travels as a hard-link entry. Plain ustar, because tar programs agree on no more.

SFTP is not used even where it is offered: it takes a round trip or more a file, and this stream takes none.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from qwex.backends.base import Source
from qwex.backends.ssh.specs import quote
from qwex.errors import WorkspaceError
from qwex.model.trees import Entry, Kind, Tree

__all__ = ["Upload", "compressed", "member", "plan", "shared", "spool", "stream"]

_PIECE = 1 << 32  # a ustar member holds less than 8 GiB
_SPARSE = 1 << 20  # holes that are less than this altogether are sent as zeros
_READ = 1 << 20
_END = bytes(1024)
_WORDS = 200  # names on one command line
_IMPLIED = 0o700  # the mode over there of a directory that a tree does not name, and of one that mkdir makes


def shared(tree: Tree, base: Tree) -> int:
    """How many bytes (and entries) of ``tree`` need not be sent when ``base`` is there."""
    known = {entry.digest for entry in base.entries if entry.kind is Kind.FILE}
    return sum(entry.size + 512 for entry in tree.entries if entry.digest in known)


@dataclass(slots=True)
class Upload:
    """What to send. ``size``: bytes of content."""

    before: bytes = b""
    directories: list[Entry] = field(default_factory=list)
    links: list[Entry] = field(default_factory=list)
    hard: list[tuple[bytes, bytes, Entry]] = field(default_factory=list)  # (path, linked to, entry)
    files: list[tuple[bytes, Entry]] = field(default_factory=list)  # (name in the tar, entry)
    after: list[bytes] = field(default_factory=list)
    staged: int = 0

    @property
    def size(self) -> int:
        return sum(entry.size for _, entry in self.files)

    def stage(self) -> bytes:
        self.staged += 1
        return b"stage/%d" % self.staged


def _local(path: bytes) -> bytes:
    """A path inside ``t/`` as a word of the scripts, which run there: no leading dash."""
    return quote(b"./" + path)


def plan(tree: Tree, base: Tree) -> Upload:
    """The steps from ``base`` (empty: from nothing) to ``tree``."""
    upload = Upload()
    old = _by_path(base)
    new = _by_path(tree)
    replaced = {
        path
        for path, was in old.items()
        if path in new
        and (was.kind is not new[path].kind or (was.kind is not Kind.DIRECTORY and _differs(was, new[path])))
    }
    blocked = replaced | _below({path for path in replaced if old[path].kind is Kind.DIRECTORY}, old)
    gone = _topmost(path for path in old if path not in new and path not in blocked)
    wanted = [entry for path, entry in new.items() if path not in old or path in blocked]
    contents = {entry.digest for entry in wanted if entry.kind is Kind.FILE}
    sources: dict[tuple[str, int], bytes] = {}
    modes: dict[str, bytes] = {}  # where a content is, whatever its mode
    for path, was in old.items():
        if was.digest in contents and was.kind is Kind.FILE and path not in blocked:
            sources.setdefault((was.digest, was.mode), b"t/" + path)
            modes[was.digest] = path
    rescued: dict[str, bytes] = {}
    for path in sorted(blocked):
        was = old[path]
        if was.kind is Kind.FILE:
            rescued.setdefault(was.digest, path)

    before: list[bytes] = []
    loose = [was.path for was in old.values() if was.kind is Kind.DIRECTORY and was.mode & 0o700 != 0o700]
    before += _batches(b"chmod u+rwx", map(_local, [b"", *loose] if loose else []))
    stages: dict[str, bytes] = {}
    for entry in wanted:
        if entry.kind is Kind.FILE and (entry.digest, entry.mode) not in sources and entry.digest in rescued:
            if entry.digest in modes or entry.digest in stages or entry.size == 0:
                continue
            stages[entry.digest] = upload.stage()
            before.append(b"mv %s ../%s" % (_local(rescued[entry.digest]), stages[entry.digest]))
    before += _batches(b"rm -rf", map(_local, sorted(_topmost(replaced))))
    # The modes of a directory whose mode changed, and of those that were opened up above, are set at the end.
    chmods: dict[int, list[bytes]] = {}
    for entry in new.values():
        if entry.kind is Kind.DIRECTORY and (entry.path not in old or entry.path in replaced):
            upload.directories.append(entry)
            if len(_ustar_name(b"t/" + entry.path)) == 0:
                before.append(b"mkdir -p " + _local(entry.path))
        if entry.kind is Kind.DIRECTORY:
            was_ = old.get(entry.path)
            made = was_.mode if was_ is not None and was_.kind is Kind.DIRECTORY else _IMPLIED
            if made != entry.mode or entry.mode & 0o700 != 0o700:
                chmods.setdefault(entry.mode, []).append(_local(entry.path))
    upload.before = b"".join(line + b" || exit 3\n" for line in before)
    if upload.before:
        upload.before = b"cd t || exit 3\n" + upload.before

    copies: list[tuple[bytes, Entry]] = []
    for entry in wanted:
        if entry.kind is Kind.LINK:
            upload.links.append(entry)
        if entry.kind is not Kind.FILE:
            continue
        source = sources.get((entry.digest, entry.mode))
        if entry.size == 0:
            source = None
        if source is not None:
            upload.hard.append((entry.path, source, entry))
        elif entry.digest in modes and entry.size:
            copies.append((quote(b"./" + modes[entry.digest]), entry))
        elif entry.digest in stages:
            copies.append((quote(b"../" + stages[entry.digest]), entry))
        else:
            upload.files.append((b"t/" + entry.path, entry))
            if entry.size:
                sources[entry.digest, entry.mode] = b"t/" + entry.path
    _finish(upload, copies, gone, chmods)
    return upload


def _by_path(tree: Tree) -> dict[bytes, Entry]:
    """The entries in order, with the directories that a tree does not name because something is in them."""
    found = {entry.path: entry for entry in tree.entries}
    count = len(found)
    for entry in tree.entries:
        parent = entry.path.rpartition(b"/")[0]
        while parent and parent not in found:
            found[parent] = Entry(parent, Kind.DIRECTORY, _IMPLIED, 0, "", entry.mtime_ns)
            parent = posixpath.dirname(parent)
    return found if len(found) == count else dict(sorted(found.items()))


def _differs(was: Entry, now: Entry) -> bool:
    return was.digest != now.digest or (was.kind is Kind.FILE and was.mode != now.mode)


def _below(directories: set[bytes], among: Iterable[bytes]) -> set[bytes]:
    """What of ``among`` is below one of these."""
    found = set()
    if directories:
        for path in among:
            parent = posixpath.dirname(path)
            while parent and parent not in directories:
                parent = posixpath.dirname(parent)
            if parent:
                found.add(path)
    return found


def _topmost(paths: Iterable[bytes]) -> list[bytes]:
    """Those without one of the others above them."""
    every = set(paths)
    top = []
    for path in every:
        parent = posixpath.dirname(path)
        while parent and parent not in every:
            parent = posixpath.dirname(parent)
        if not parent:
            top.append(path)
    return top


def _batches(command: bytes, words: Iterable[bytes]) -> list[bytes]:
    listed = list(words)
    return [command + b" " + b" ".join(listed[at : at + _WORDS]) for at in range(0, len(listed), _WORDS)]


def _finish(
    upload: Upload, copies: list[tuple[bytes, Entry]], gone: list[bytes], chmods: dict[int, list[bytes]]
) -> None:
    """Fill ``after``: entries ustar has no room for, copies with another mode, removals, modes of directories."""
    after = upload.after
    hard = []
    for path, source, entry in upload.hard:
        if len(source) > 100 or not _ustar_name(b"t/" + path):
            inside = source[2:] if source.startswith(b"t/") else b"../" + source
            after.append(b"ln %s %s" % (_local(inside), _local(path)))
        else:
            hard.append((path, source, entry))
    upload.hard = hard
    links = []
    for entry in upload.links:
        if len(entry.target) > 100 or not _ustar_name(b"t/" + entry.path):
            after.append(b"ln -s %s %s" % (quote(entry.target), _local(entry.path)))
        else:
            links.append(entry)
    upload.links = links
    files = []
    moves = []
    for name, entry in upload.files:
        if not _ustar_name(name):
            place = upload.stage()
            moves.append(b"mv ../%s %s" % (place, _local(entry.path)))
            files.append((place, entry))
        else:
            files.append((name, entry))
    upload.files = files
    # A hard link may point to a file that is only moved into place now.
    after[:0] = moves
    for source, entry in copies:
        target = _local(entry.path)
        after.append(b"cp -p %s %s && chmod %o %s" % (source, target, entry.mode, target))
    after += _batches(b"rm -rf", map(_local, sorted(gone)))
    for mode, paths in sorted(chmods.items()):
        # Deepest first: a directory without x closes what is below it.
        after += _batches(b"chmod %o" % mode, sorted(paths, key=lambda path: -path.count(b"/")))


def _ustar_name(name: bytes) -> tuple[bytes, ...]:
    """(prefix, name) as ustar splits a path, () when it does not fit."""
    if len(name) <= 100:
        return b"", name
    if len(name) > 256:
        return ()
    cut = name.rfind(b"/", 0, 156)
    # The name part must fit; the earliest cut that lets it is not needed, any will do.
    if cut <= 0 or len(name) - cut - 1 > 100 or cut + 1 == len(name):
        return ()
    return name[:cut], name[cut + 1 :]


def member(
    name: bytes, size: int = 0, mode: int = 0o600, mtime: int = 0, kind: bytes = b"0", target: bytes = b""
) -> bytes:
    """The header of one ustar member; its content follows, filled up to 512 bytes."""
    split = _ustar_name(name)
    prefix, short = split or (b"", name[:100])
    head = b"%s%07o\0000000000\0000000000\0%011o\0%011o\0        %s%s" % (
        short.ljust(100, b"\0"),
        mode & 0o7777,
        size,
        max(0, min(mtime, 0o77777777777)),
        kind,
        target.ljust(100, b"\0"),
    )
    head += b"ustar\00000" + bytes(64) + b"0000000\0000000000\0"[:16] + prefix.ljust(155, b"\0")
    head = head.ljust(512, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def stream(upload: Upload, source: Source | None, end: bytes, sent: Callable[[int], None]) -> Iterator[bytes]:
    """The upload as bytes: the lines before, ``end``, the tar. ``sent`` is told of every piece of content.

    WorkspaceError when a file no longer holds what was recorded.
    """
    yield upload.before + end + b"\n"
    buffer = bytearray()
    for entry in upload.directories:
        if _ustar_name(b"t/" + entry.path):
            buffer += member(b"t/" + entry.path, 0, entry.mode | 0o700, entry.mtime_ns // 10**9, b"5")
    after = list(upload.after)
    for name, entry in upload.files:
        for piece in _content(upload, name, entry, source, after):
            buffer += piece
            if len(buffer) >= _READ:
                yield bytes(buffer)
                buffer.clear()
        sent(entry.size)
    for path, target, entry in upload.hard:
        buffer += member(b"t/" + path, 0, entry.mode, entry.mtime_ns // 10**9, b"1", target)
        if len(buffer) >= _READ:
            yield bytes(buffer)
            buffer.clear()
    for entry in upload.links:
        buffer += member(b"t/" + entry.path, 0, 0o777, entry.mtime_ns // 10**9, b"2", entry.target)
    text = b"cd t || exit 3\n" + b"".join(line + b" || exit 3\n" for line in after)
    buffer += member(b"after", len(text)) + text + bytes(-len(text) % 512)
    yield bytes(buffer) + _END


def _content(upload: Upload, name: bytes, entry: Entry, source: Source | None, after: list[bytes]) -> Iterator[bytes]:
    mtime = entry.mtime_ns // 10**9
    if entry.size == 0:
        yield member(name, 0, entry.mode, mtime)
        return
    if source is None:
        raise WorkspaceError(f"there is nothing to send {os.fsdecode(entry.path)} from")
    path = source.locate(entry.digest)
    file = -1
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(file)
        if status.st_size != entry.size:
            raise _changed(entry)
        if entry.size <= _READ:  # nearly all files: one read, one piece
            data = os.read(file, entry.size)
            if hashlib.sha256(data).hexdigest() != entry.digest:
                raise _changed(entry)
            yield member(name, entry.size, entry.mode, mtime) + data + bytes(-entry.size % 512)
        elif entry.size >= _PIECE or status.st_blocks * 512 < entry.size - _SPARSE:
            yield from _pieces(upload, file, name, entry, after)
            if os.fstat(file).st_mtime_ns != status.st_mtime_ns:
                raise _changed(entry)
        else:
            yield member(name, entry.size, entry.mode, mtime)
            digest = hashlib.sha256()
            left = entry.size
            while left:
                data = os.read(file, min(_READ, left))
                if not data:
                    raise _changed(entry)
                digest.update(data)
                left -= len(data)
                yield data
            if digest.hexdigest() != entry.digest:
                raise _changed(entry)
            yield bytes(-entry.size % 512)
    except OSError as error:
        raise WorkspaceError(
            f"cannot read {os.fsdecode(entry.path)}: {error.strerror}", hint="run the command again"
        ) from error
    finally:
        if file >= 0:
            os.close(file)


def _pieces(upload: Upload, descriptor: int, name: bytes, entry: Entry, after: list[bytes]) -> Iterator[bytes]:
    """A file with holes, or one too big for ustar: its data as members of their own, put together over there by dd."""
    inside = b"./" + name[2:] if name.startswith(b"t/") else b"../" + name
    target = quote(inside)
    steps = [b"dd if=/dev/null of=%s bs=1 seek=%d count=0 2>/dev/null" % (target, entry.size)]
    for start, stop in _segments(descriptor, entry.size):
        place = upload.stage()
        yield member(place, stop - start)
        at = start
        while at < stop:
            data = os.pread(descriptor, min(_READ, stop - at), at)
            if not data:
                raise _changed(entry)
            at += len(data)
            yield data
        yield bytes(-(stop - start) % 512)
        steps.append(
            b"dd if=../%s of=%s bs=4096 seek=%d conv=notrunc 2>/dev/null && rm ../%s"
            % (place, target, start // 4096, place)
        )
    yield member(name, 0, entry.mode | 0o200, entry.mtime_ns // 10**9)
    if entry.mode & 0o200 == 0:
        steps.append(b"chmod %o %s" % (entry.mode, target))
    after[:0] = steps


def _segments(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where there is data, in multiples of 4096 from the front, no piece longer than ustar allows."""
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA) // 4096 * 4096
            stop = os.lseek(descriptor, max(start, at), os.SEEK_HOLE)
        except OSError as error:
            if error.errno == 6:  # ENXIO: nothing but a hole from here
                return
            start, stop = at, size
        stop = min(size, -(-stop // 4096) * 4096, start + _PIECE)
        if stop <= start:
            return
        yield start, stop
        at = stop


def _changed(entry: Entry) -> WorkspaceError:
    return WorkspaceError(f"{os.fsdecode(entry.path)} changed while it was being sent", hint="run the command again")


def compressed(chunks: Iterator[bytes], level: int) -> Iterator[bytes]:
    """The same as a gzip stream."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    for chunk in chunks:
        data = packer.compress(chunk)
        if data:
            yield data
    yield packer.flush()


def spool(files: Iterable[tuple[str, bytes, Path | None]]) -> Iterator[bytes]:
    """A tar of the runs' own files, with ``complete`` as its last member."""
    buffer = bytearray()
    made = set()
    for name, data, file in files:
        folder = name.partition("/")[0]
        if folder not in made:
            made.add(folder)
            buffer += member(folder.encode(), 0, 0o700, kind=b"5")
        if file is None:
            buffer += member(name.encode(), len(data)) + data + bytes(-len(data) % 512)
            continue
        with open(file, "rb") as stream_:
            size = os.fstat(stream_.fileno()).st_size
            buffer += member(name.encode(), size)
            left = size
            while left:
                piece = stream_.read(min(_READ, left))
                if not piece:
                    raise WorkspaceError(f"{file} became shorter while it was being sent", hint="run the command again")
                left -= len(piece)
                buffer += piece
                if len(buffer) >= _READ:
                    yield bytes(buffer)
                    buffer.clear()
            buffer += bytes(-size % 512)
    buffer += member(b"complete")
    yield bytes(buffer) + _END
