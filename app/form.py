"""A ``multipart/form-data`` body that is passed on as it came, but for its field ``model``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.errors import CallerError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_PARTS = 256
_LONGEST_FIELD = 64 * 1024
"""Bytes of a field that is no file; a longer one is passed on and not looked at."""


@dataclass(frozen=True, slots=True)
class Form:
    """A body, and where its parts are.

    Attributes:
        raw: the body as it came.
        content_type: the header that names its boundary.
        boundary: as the header has it.
        fields: the parts that are no files, by name; ``files``: the names of those that are.
        model: where the value of the field ``model`` begins and ends in ``raw``, or None where there is none.
    """

    raw: bytes = field(repr=False)
    content_type: str
    boundary: bytes
    fields: dict[str, Any]
    files: frozenset[str]
    model: tuple[int, int] | None

    def with_model(self, model: str) -> bytes:
        """Return the body with another ``model``, which is added where there was none."""
        name = model.encode()
        if self.model is not None:
            begin, end = self.model
            return b"".join((self.raw[:begin], name, self.raw[end:]))
        head = b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n' % self.boundary
        return b"".join((head, name, b"\r\n", self.raw))


class _Parts:
    """What the parser tells, part by part; positions count from the body's beginning."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.files: set[str] = set()
        self.model: tuple[int, int] | None = None
        self.ended = False
        self._headers: dict[bytes, bytes] = {}
        self._header = [b"", b""]
        self._span: tuple[int, int] | None = None
        self._value = b""
        self._count = 0

    def callbacks(self) -> MultipartCallbacks:
        """Return what the parser is to call."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, begin, end: self._add(0, data[begin:end]),
            "on_header_value": lambda data, begin, end: self._add(1, data[begin:end]),
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._over,
        }

    def _begin(self) -> None:
        self._count += 1
        if self._count > _MOST_PARTS:
            raise CallerError(f"The form has more than {_MOST_PARTS} parts.", code="invalid_multipart")
        self._headers, self._span, self._value = {}, None, b""

    def _add(self, which: int, data: bytes) -> None:
        self._header[which] += data

    def _header_end(self) -> None:
        name, value = self._header
        self._headers[name.lower()] = value
        self._header = [b"", b""]

    def _data(self, data: bytes, begin: int, end: int) -> None:
        self._span = (self._span[0] if self._span else begin, end)
        if len(self._value) <= _LONGEST_FIELD:
            self._value += data[begin : min(end, begin + _LONGEST_FIELD + 1)]

    def _end(self) -> None:
        name, is_file = _disposition(self._headers.get(b"content-disposition", b""))
        if is_file:
            self.files.add(name)
            return
        if name == "model" and self._span is not None:
            self.model = self._span
        self.fields[name] = self._value.decode("utf-8", "replace")

    def _over(self) -> None:
        self.ended = True


def parse(raw: bytes, content_type: str) -> Form:
    """Find the parts of a body.

    Raises:
        CallerError: 400, it is no such form.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise CallerError(
            "This endpoint takes multipart/form-data, with its boundary in the Content-Type header.",
            code="invalid_content_type",
        )
    parts = _Parts()
    try:
        MultipartParser(boundary, parts.callbacks()).write(raw)
    except FormParserError as error:
        raise CallerError(f"The form cannot be read: {error}", code="invalid_multipart") from error
    if not parts.ended:
        raise CallerError("The form ends before its last boundary.", code="invalid_multipart")
    return Form(raw, content_type, boundary, parts.fields, frozenset(parts.files), parts.model)


def _disposition(header: bytes) -> tuple[str, bool]:
    """Return a part's name, and whether it is a file."""
    from python_multipart.multipart import parse_options_header

    _, options = parse_options_header(header)
    name = options.get(b"name")
    if name is None:
        raise CallerError("A part of the form has no name.", code="invalid_multipart")
    return name.decode("utf-8", "replace"), b"filename" in options
