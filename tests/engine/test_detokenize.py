from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.engine.detokenize import Detokenizer, TokenBytes, _from_bytelevel, _from_spm

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def tokenizer(qwen: Path) -> Any:
    from mlx_lm.utils import load_tokenizer

    return load_tokenizer(qwen)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def table(tokenizer: Any) -> TokenBytes:
    return TokenBytes(tokenizer)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_any_text_comes_back_as_it_was(tokenizer: Any, table: TokenBytes, text: str) -> None:
    detokenizer = Detokenizer(table)
    shown = "".join(detokenizer.add(token) for token in tokenizer.encode(text, add_special_tokens=False))
    expected = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), skip_special_tokens=True)
    assert shown + detokenizer.end() == expected


def test_half_a_character_waits_for_the_other_half(table: TokenBytes) -> None:
    halves = [table.full.index(bytes([byte])) for byte in "é".encode()]
    detokenizer = Detokenizer(table)
    assert [detokenizer.add(token) for token in halves] == ["", "é"]
    cut = Detokenizer(table)
    assert cut.add(halves[0]) == ""
    assert cut.end() == "\ufffd"


def test_special_tokens_are_not_shown_but_marks_are(tokenizer: Any, table: TokenBytes) -> None:
    ids = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<tool_call>"])
    assert [table.piece(token) for token in ids] == [b"", b"<tool_call>"]
    assert table.whole(ids[0]) == b"<|im_start|>"
    assert table.piece(10**6) == table.whole(-1) == b""


def test_token_names_of_both_kinds() -> None:
    assert _from_bytelevel("Ġab") == b" ab"
    assert _from_bytelevel("Ã©") == "é".encode()
    assert _from_spm("\u2581ab") == b" ab"
    assert _from_spm("<0xE9>") == b"\xe9"


def test_a_sentencepiece_answer_loses_its_first_space_unless_it_goes_on(table: TokenBytes) -> None:
    space = table.full.index(b" ka") if b" ka" in table.full else table.full.index(b" ")
    trimming = TokenBytes.__new__(TokenBytes)
    trimming.full, trimming.shown, trimming.trim_first = table.full, table.shown, True
    assert not Detokenizer(trimming).add(space).startswith(" ")
    assert Detokenizer(trimming, continues=True).add(space).startswith(" ")
