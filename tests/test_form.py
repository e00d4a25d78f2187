"""Forms that are passed on: every byte but the model's is the caller's."""

from __future__ import annotations

import email.parser
import email.policy
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import CallerError
from app.form import parse

_URL = "http://x/"
_KIND = "multipart/form-data; boundary=x"


def _encoded(fields: dict[str, str], files: dict[str, tuple[str, bytes]]) -> tuple[bytes, str]:
    request = httpx.Request("POST", _URL, data=fields, files=files)
    return request.read(), request.headers["content-type"]


def _parts(raw: bytes, kind: str) -> list[tuple[str, Any]]:
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(f"content-type: {kind}\r\n\r\n".encode() + raw)
    return [
        (str(part.get_param("name", header="content-disposition")), part.get_payload(decode=True))
        for part in form.iter_parts()
    ]


@given(
    content=st.binary(max_size=300).map(lambda b: b + b"\r\n--") | st.binary(max_size=5000),
    model=st.from_regex(r"[a-z][a-z0-9./-]{0,30}", fullmatch=True) | st.none(),
    other=st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40),
)
def test_the_model_is_replaced_and_nothing_else(content: bytes, model: str | None, other: str) -> None:
    fields = {"language": other} | ({} if model is None else {"model": model})
    raw, kind = _encoded(fields, {"file": ("a.wav", content)})
    form = parse(raw, kind)
    assert (form.fields, form.files) == (fields, frozenset({"file"}))
    changed = form.with_model("openai/whisper-1")
    expected = {name: value.encode() for name, value in fields.items()} | {"model": b"openai/whisper-1"}
    again = parse(changed, kind)
    assert {name: value.encode() for name, value in again.fields.items()} == expected
    assert content in changed
    assert len(changed) - len(raw) >= 0 or model is not None


def test_what_a_library_reads_of_it_is_the_same() -> None:
    raw, kind = _encoded({"model": "m", "prompt": "hi"}, {"file": ("a.bin", b"\x00\r\n\xff")})
    form = parse(raw, kind)
    assert dict(_parts(form.with_model("other"), kind)) == {
        "model": b"other",
        "prompt": b"hi",
        "file": b"\x00\r\n\xff",
    }


@pytest.mark.parametrize(
    ("raw", "kind", "code"),
    [
        (b"{}", "application/json", "invalid_content_type"),
        (b"--x--\r\n", "multipart/form-data", "invalid_content_type"),
        (b"nonsense", _KIND, "invalid_multipart"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n", _KIND, "invalid_multipart"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb', _KIND, "invalid_multipart"),
        (b"", _KIND, "invalid_multipart"),
    ],
)  # fmt: skip
def test_what_is_no_form_is_refused(raw: bytes, kind: str, code: str) -> None:
    with pytest.raises(CallerError) as caught:
        parse(raw, kind)
    assert caught.value.code == code


def test_too_many_parts_are_refused() -> None:
    raw, kind = _encoded({f"f{n}": "x" for n in range(300)}, {"file": ("a", b"")})
    with pytest.raises(CallerError, match="more than 256 parts"):
        parse(raw, kind)
