"""Words, hashes and lexicon: the parts of the pass that the classifier rests on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.route import features as f
from app.route.alphabet import OPENS
from app.route.classify import load


def cut(text: str) -> list[str]:
    found = f.words(text)
    return [found.text[a:b] for a, b in zip(*found.bounds(), strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write a C++ function", ["Write", "a", "C++", "function"]),
        ("fast_lookup(x)=1", ["fast", "lookup", "x", "1"]),
        ("Напиши функцию", ["Напиши", "функцию"]),
        ("写一个 script", ["写", "一", "个", "script"]),
        ("スクリプトを書く", ["スクリプト", "を", "書", "く"]),
        ("", []),
        ("?!", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


@settings(deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_ascii_path_and_general_path_cut_alike(text: str) -> None:
    plain = text.encode("ascii", "replace").decode()
    assert cut(plain) == cut(f"{plain} é")[:-1]


def key(text: str) -> int:
    return f.entry_key(text)


def test_same_word_same_hash_wherever_it_stands() -> None:
    one = f.words("code")
    far = f.words("please read the long code")
    assert one.keys[1] in far.keys


def test_case_accents_width_and_digits_do_not_matter() -> None:
    assert key("Función") == key("funcion") == key("\uff26\uff35\uff2e\uff23\uff29\uff2f\uff2e")
    assert key("v1 2") == key("v7 9")
    assert key("й") != key("и")


def test_lexicon_finds_words_phrases_and_stems() -> None:
    entries = {f.entry_key("unit test"): 4, f.entry_key("test"): 5, f.entry_key("функц*"): 6, f.entry_key("正则表"): 7}
    lexicon = f.build_lexicon(entries)
    _, found = f.extract("a unit test, a test, функциями 正则表达式", lexicon)
    assert found.hits == [(1, 4), (2, 5), (4, 5), (5, 6), (6, 7)]


@pytest.mark.parametrize("entry", ["one two three four", "", "abc*", "abcdefg*"])
def test_entries_that_cannot_be_found_are_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"stem|words long"):
        f.entry_key(entry)


def test_clip_keeps_both_ends() -> None:
    text = "start " + "x" * 400_000 + " end"
    kept = f.clip(text)
    assert len(kept) == f.HEAD + f.TAIL + 1
    assert kept.startswith("start ")
    assert kept.endswith(" end")


@settings(deadline=None)
@given(st.text(st.characters(), max_size=1500))
def test_columns_stay_in_their_tables(text: str) -> None:
    _, found = f.extract(f.clip(text), f.build_lexicon({}))
    assert ((found.rows >= 0) & (found.rows < f.ROWS)).all()
    assert ((found.skeleton >= 0) & (found.skeleton < f.SKELETON)).all()
    assert len(found.shape) == f.SHAPE


TEXTS = st.one_of(
    st.text(st.characters(max_codepoint=127), max_size=1200),
    st.text(st.sampled_from("aA b.B\n:+0é")),
    st.lists(
        st.sampled_from(("Write", "a", "unit", "test", "in", "C#", "hello.", "why?\n", "x" * 30, "é", "def f():"))
    ).map(" ".join),
)


@settings(deadline=None)
@given(TEXTS)
def test_words_met_before_give_what_hashing_the_whole_text_gives(text: str) -> None:
    text = f.clip(text)
    lexicon = load().lexicon._replace(kept={})
    whole = f.words(text)
    for _ in range(2 + len(whole.groups) // f._FEW):  # a few of the new words are kept each time
        found, columns = f.extract(text, lexicon)
        assert columns.rows.tolist() == whole.rows.tolist()
        assert columns.hits == f._lookup(whole, lexicon)
        assert found.opens == {at for at, start in enumerate(whole.bounds()[0]) if whole.text[start - 2] in OPENS}
    short_of = {word for word in whole.text.lower().split() if word.isalpha() and len(word) <= f._LONGEST_KEPT}
    assert not text.isascii() or not short_of or lexicon.kept


def test_few_words_are_kept_and_none_that_is_long() -> None:
    lexicon = f.build_lexicon({})
    for at in range(2 * f._MOST_KEPT):
        f._meet(f"{at:o}".translate(str.maketrans("01234567", "abcdefgh")).encode(), lexicon)
        assert len(lexicon.kept) <= f._MOST_KEPT
    before = len(lexicon.kept)
    f._meet(b"x" * (f._LONGEST_KEPT + 1), lexicon)
    assert len(lexicon.kept) == before
