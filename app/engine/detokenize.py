"""Token ids to text, piece by piece: never half a character, no space lost, special tokens left out."""

from __future__ import annotations

import codecs
from typing import Any

_SPM_SPACE = "\u2581"


class TokenBytes:
    """The bytes of every token of a vocabulary, read once a model.

    ``shown`` leaves special tokens out, except the markers of reasoning and tool calls, which are needed to find them.
    """

    def __init__(self, tokenizer: Any) -> None:
        inner = tokenizer._tokenizer  # noqa: SLF001 - the Hugging Face tokenizer inside mlx-lm's wrapper
        kind = type(tokenizer._detokenizer).__name__  # noqa: SLF001 - mlx-lm has found out how the tokens are written
        self.trim_first = bool(getattr(tokenizer._detokenizer, "trim_space", False))  # noqa: SLF001
        names = inner.convert_ids_to_tokens(list(range(len(inner))))
        added = {token: str(text) for token, text in inner.added_tokens_decoder.items()}
        read = {"BPEStreamingDetokenizer": _from_bytelevel, "SPMStreamingDetokenizer": _from_spm}.get(kind)
        if read is None:
            self.full = [_decoded(inner, token) for token in range(len(names))]
        else:
            self.full = [added[i].encode() if i in added else read(name or "") for i, name in enumerate(names)]
        self.shown = self._without_special(tokenizer, inner)

    def _without_special(self, tokenizer: Any, inner: Any) -> list[bytes]:
        markers = (tokenizer.think_start, tokenizer.think_end, tokenizer.tool_call_start, tokenizer.tool_call_end)
        kept = "".join(marker for marker in markers if marker)
        shown = list(self.full)
        flagged = [token for token, text in inner.added_tokens_decoder.items() if text.special]
        for token in {*inner.all_special_ids, *flagged}:
            text = self.full[token].decode("utf-8", "replace") if token < len(shown) else ""
            if text and text not in kept:
                shown[token] = b""
        return shown

    def piece(self, token: int) -> bytes:
        """Return a token's bytes as shown; ids of a padded vocabulary have none."""
        return self.shown[token] if 0 <= token < len(self.shown) else b""

    def whole(self, token: int) -> bytes:
        """Return a token's bytes, special or not."""
        return self.full[token] if 0 <= token < len(self.full) else b""


class Detokenizer:
    """Turns one answer's tokens into text."""

    def __init__(self, table: TokenBytes, *, continues: bool = False) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._trim = table.trim_first and not continues

    def add(self, token: int) -> str:
        """Return the text that the token completes."""
        return self._trimmed(self._decoder.decode(self._table.piece(token)))

    def end(self) -> str:
        """Return what is left at the end: the replacement character where a character was cut in two."""
        return self._trimmed(self._decoder.decode(b"", final=True))

    def _trimmed(self, text: str) -> str:
        if self._trim and text:
            self._trim = False
            return text.removeprefix(" ")
        return text


def _byte_of() -> dict[str, int]:
    """Return GPT-2's table: printable bytes stand for themselves, the others for characters from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_of()


def _from_bytelevel(name: str) -> bytes:
    return b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in name)


def _from_spm(name: str) -> bytes:
    if len(name) == 6 and name.startswith("<0x"):  # noqa: PLR2004 - <0xNN> is one byte
        return bytes([int(name[3:5], 16)])
    return name.replace(_SPM_SPACE, " ").encode()


def _decoded(inner: Any, token: int) -> bytes:
    return str(inner.decode([token], skip_special_tokens=False)).encode()
