"""Uploads: a form's file goes to disk as it comes, so that its size costs no memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.api.parse import ClientGoneError
from app.errors import CallerError, SluiceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedWriter
    from pathlib import Path

    from app.api.parse import Receive

_PIECE_BYTES = 1024 * 1024
_LONGEST_FIELD = 64 * 1024


@dataclass(slots=True)
class Upload:
    """What a form brought.

    Attributes:
        fields: the parts that are no file.
        filename: the file's name as the caller has it; None where no file came.
        size: its bytes; they lie at ``path``.
    """

    path: Path
    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    size: int = 0


class _Parts:
    """Sorts what the parser finds: the file's bytes into a buffer, fields into their place."""

    def __init__(self, upload: Upload) -> None:
        self.upload = upload
        self.buffer = bytearray()
        self.ended = False
        self._headers: dict[bytes, bytes] = {}
        self._header = [b"", b""]
        self._name = ""
        self._value: bytearray | None = None

    def callbacks(self) -> Any:
        """Return what the parser is to call."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, begin, end: self._add(0, data[begin:end]),
            "on_header_value": lambda data, begin, end: self._add(1, data[begin:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._over,
        }

    def _begin(self) -> None:
        self._headers = {}

    def _add(self, which: int, data: bytes) -> None:
        self._header[which] += data

    def _header_end(self) -> None:
        name, value = self._header
        self._headers[name.lower()] = value
        self._header = [b"", b""]

    def _headers_end(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        self._value = bytearray()
        if self._name == "file" and filename is not None:
            if self.upload.filename is not None:
                raise CallerError("A form brings one file.", param="file", code="invalid_value")
            self.upload.filename = filename.decode("utf-8", "replace")
            self._value = None

    def _data(self, data: bytes, begin: int, end: int) -> None:
        into = self.buffer if self._value is None else self._value
        into += data[begin:end]
        if self._value is not None and len(self._value) > _LONGEST_FIELD:
            raise CallerError(f"The field {self._name!r} is too long.", param=self._name, code="invalid_value")

    def _end(self) -> None:
        if self._value is not None:
            self.upload.fields[self._name] = self._value.decode("utf-8", "replace")

    def _over(self) -> None:
        self.ended = True


async def take(receive: Receive, content_type: str, path: Path, limit_mb: float) -> Upload:
    """Read a form and put its file at ``path``; on an error nothing is left there.

    Raises:
        CallerError: 400, it is no such form; 413, its file is larger than the limit.
        SluiceError: 507, the disk is full.
        ClientGoneError: the caller left before it was complete.
    """
    upload = Upload(path)
    try:
        with await asyncio.to_thread(path.open, "xb") as out:
            await _read(receive, _parser(content_type, parts := _Parts(upload)), parts, out, limit_mb)
    except BaseException as error:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        if isinstance(error, OSError):
            raise SluiceError(
                f"The file cannot be kept: {error.strerror or error}.", status=507, code="storage_full"
            ) from error
        raise
    return upload


def _parser(content_type: str, parts: _Parts) -> Callable[[bytes], None]:
    """Return what is fed with the body's pieces."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise CallerError("This endpoint takes multipart/form-data.", code="invalid_content_type")
    parser = MultipartParser(options[b"boundary"], parts.callbacks())

    def feed(data: bytes) -> None:
        try:
            parser.write(data)
        except FormParserError as error:
            raise CallerError(f"The form cannot be read: {error}", code="invalid_multipart") from error

    return feed


async def _read(
    receive: Receive, feed: Callable[[bytes], None], parts: _Parts, out: BufferedWriter, limit_mb: float
) -> None:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        feed(message.get("body", b""))
        more = message.get("more_body", False)
        if parts.upload.size + len(parts.buffer) > limit_mb * 1024 * 1024:
            raise CallerError(
                f"The file is larger than {limit_mb:g} MB (MAX_FILE_MB).",
                status=413,
                code="file_too_large",
                param="file",
                fault="caller_too_large",
            )
        if len(parts.buffer) >= _PIECE_BYTES or not more:
            piece, parts.buffer = parts.buffer, bytearray()
            parts.upload.size += len(piece)
            await asyncio.to_thread(out.write, piece)
    if not parts.ended:
        raise CallerError("The form ends before its last boundary.", code="invalid_multipart")
