"""Editing a ``.env`` file: single variables change, everything else stays as it is, and no reader sees half of it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import tempfile
from typing import TYPE_CHECKING

from dotenv.parser import Binding, parse_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_PLAIN = re.compile(r"[^\s#'\"`$\\]+")
"""Values that a ``.env`` file takes without quotes."""
_ASSIGNED = re.compile(
    r"""(?P<head>\s*(?:export[^\S\r\n]+)?['"]?[^\s='"]+['"]?[^\S\r\n]*=[^\S\r\n]*)"""
    r"""(?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?:(?![^\S\r\n]+\#)[^\r\n])*?)"""
    r"""(?P<tail>(?:[^\S\r\n]+\#[^\r\n]*|[^\S\r\n]*)(?:\r\n|\n|\r)?)""",
    re.DOTALL,
)
_IN_PLACE = frozenset({errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS})
"""A file that is a mount point cannot be replaced, nor one whose directory may not be written to; its bytes can."""


def read_text(path: Path) -> str:
    """Return the file's text with its line ends as they are; a missing file is empty.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""


def edited(text: str, changes: Mapping[str, str | None]) -> str:
    """Return the text of a ``.env`` file with these variables set, or taken out where the value is None.

    Names are compared without regard to case, as the settings read them. A variable that is there keeps its place, its
    spelling and its comment; a new one goes to the end.

    Raises:
        ValueError: a value holds a line break.
    """
    bindings = list(parse_stream(io.StringIO(text, newline="")))
    for name, value in changes.items():
        places = [index for index, each in enumerate(bindings) if each.key and each.key.lower() == name.lower()]
        if value is None:
            bindings = [each for index, each in enumerate(bindings) if index not in places]
        elif places:  # the last one counts
            bindings[places[-1]] = _changed(bindings[places[-1]], value)
        else:
            bindings += parse_stream(io.StringIO(_line(bindings, name, value), newline=""))
    return "".join(each.original.string for each in bindings)


def _changed(binding: Binding, value: str) -> Binding:
    found = _ASSIGNED.fullmatch(binding.original.string)
    head = found["head"] if found else f"{binding.key}="
    tail = found["tail"] if found else "\n"
    original = binding.original._replace(string=f"{head}{_quoted(value)}{tail}")
    return binding._replace(value=value, original=original)


def _line(bindings: list[Binding], name: str, value: str) -> str:
    """Return a new last line; the one before it may lack its end."""
    before = bindings[-1].original.string if bindings else "\n"
    end = "\r\n" if any("\r\n" in each.original.string for each in bindings) else "\n"
    start = "" if before.endswith(("\n", "\r")) else end
    return f"{start}{name}={_quoted(value)}{end}"


def _quoted(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise ValueError("a value is one line")
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Put this text in the place of the file: at once where it can be replaced, else by writing into it.

    Args:
        path: the file; where it is a link, the file behind it is written.
        text: all of its new text.
        mode: permissions of a new file; one that is there keeps its own.

    Raises:
        OSError: it can be neither replaced nor written to.
    """
    path = path.resolve()
    data = text.encode("utf-8")
    try:
        _replace(path, data, mode)
    except OSError as error:
        if error.errno not in _IN_PLACE or not path.exists():
            raise
        _overwrite(path, data)


def _replace(path: Path, data: bytes, mode: int) -> None:
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            _like(path, handle, mode)
            os.fsync(handle)
        os.replace(name, path)  # noqa: PTH105 - the name is a string
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108 - the name is a string
        raise


def _like(path: Path, handle: int, mode: int) -> None:
    """Give the new file the owner and the permissions of the old one."""
    try:
        old = path.stat()
    except FileNotFoundError:
        os.fchmod(handle, mode)
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(PermissionError):
            os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, stat.S_IMODE(old.st_mode))


def _overwrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Keep other editors of this kind away from a file while this one edits it.

    The lock is on the directory: the file itself is replaced, and a lock would go with the old one.
    """
    import fcntl

    handle = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
