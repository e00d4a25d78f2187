"""Words, hashes and lexicon: the parts of the pass that the classifier rests on."""

from __future__ import annotations

import unicodedata
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.route import features as f
from app.route import packed
from app.route.alphabet import OPENS, alphabet
from app.route.classify import WEIGHTS, load

BASE, MIX, PAIR = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F
EMPTY = f.build_lexicon({}, [])
RAW = packed.read(WEIGHTS).tables[0].raw


def cut(text: str) -> list[str]:
    found = f.extract(text, EMPTY)
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


TEXTS = st.one_of(
    st.text(st.characters(), max_size=300),
    st.text(st.characters(max_codepoint=127), max_size=1200),
    st.text(st.sampled_from("aA b.B\n:+0é写！？ \x1f\u0301\ud800"), max_size=60),
    st.lists(
        st.sampled_from(
            ("Write", "a", "unit", "test", "in", "C#", "hello.", "why?\n", "x" * 30, "é", "def f():", "正则")
        )
    ).map(" ".join),
)


def plain(text: str) -> tuple[list[str], list[int]]:
    """Return the folded words, and which of them open a sentence, by going through the text letter by letter."""
    text = f"\n\n{text}\n\n"
    words, opens, joined = [""], [], False
    for at, sign in enumerate(text):
        folded = alphabet().fold[ord(sign)]
        alone = len(folded) > 1
        if folded in {" ", "\n"}:
            joined = False
            continue
        if alone or not joined:
            words.append("")
            if text[at - 2] in OPENS:
                opens.append(len(words) - 2)
        words[-1] += folded.strip("\x1f")
        joined = not alone
    return words[1:], opens


def columns(words: list[str]) -> list[int]:
    """Return the columns of stems, words, pairs and triples, each hashed by itself."""

    def total(word: str) -> int:
        return sum((ord(letter) + 1) * BASE**at for at, letter in enumerate(word))

    stems = [total(word[:5]) + PAIR for word in words]
    ones = [total(word) for word in words]
    twos = [one * PAIR + other for one, other in pairwise(ones)]
    threes = [one * PAIR**2 + two for one, two in zip(ones, twos[1:], strict=False)]
    each = (stems, ones, *([*keys, 0, 0][: len(words)] for keys in (twos, threes)))
    return [(key * MIX) % 2**64 >> 49 for keys in each for key in keys]


@settings(deadline=None)
@given(TEXTS)
@example("为什么？A是？？写\n写一。写")
def test_columns_are_what_hashing_each_word_gives(text: str) -> None:
    text = f.clip(text)
    words, opens = plain(text)
    found = f.extract(text, EMPTY)
    assert (found.words, f._cut(f._read(found.text)[0])[1]) == (words, opens)
    assert found.rows() == columns(words)
    assert len(cut(text)) == len(words)
    signs = [alphabet().sign[ord(sign)] for sign in found.text]
    pairs = Counter(one * 24 + other for one, other in pairwise(signs))
    assert found.neighbours() == sorted((pair, 0.25 * min(times, 16) ** 0.5) for pair, times in pairs.items())


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_words_met_before_weigh_what_their_columns_do(texts: list[str]) -> None:
    lexicon = load().lexicon._replace(kept={}, rows=packed.Rows(RAW))
    for text in [*texts, *texts]:
        found = f.extract(f.clip(text), lexicon)
        heads = zip(*(RAW[column * 10 : column * 10 + 10] for column in found.rows()), strict=True)
        sums = [sum(weights) - 128 * found.grams for weights in heads]
        assert packed.unpack(found.packed) == tuple(sums or [0] * 10)
        assert found.hits == f.extract(f.clip(text), lexicon._replace(kept={})).hits
        assert len(found.skeleton) <= 196


@given(st.lists(st.tuples(st.integers(-(2**21), 2**21), st.lists(st.integers(-127, 127), min_size=10, max_size=10))))
def test_sums_of_packed_rows_are_the_sums_of_each_head(rows: list[tuple[int, list[int]]]) -> None:
    total, plain_sums, room = 0, [0] * 10, 2**31 - 1
    for times, weights in rows:
        room -= abs(times) * 127
        if room < 0:
            break
        (row,) = packed.Table(bytes([weight + packed.ZERO for weight in weights]), []).rows()
        total += times * row
        plain_sums = [before + times * weight for before, weight in zip(plain_sums, weights, strict=True)]
    assert packed.unpack(total) == tuple(plain_sums)


@pytest.mark.parametrize("end", [2**31 - 1, -(2**31)])
def test_lanes_hold_what_they_must_at_their_ends(end: int) -> None:
    ends = [end, -end - 1] * 5
    assert packed.unpack(sum(each << 32 * head for head, each in enumerate(ends))) == tuple(ends)


def key(text: str) -> int:
    return f.entry_keys(text)[0]


def test_case_accents_width_and_digits_do_not_matter() -> None:
    assert key("Función") == key("funcion") == key("\uff26\uff35\uff2e\uff23\uff29\uff2f\uff2e")
    assert key("v1 2") == key("v7 9")
    assert key("й") != key("и")


def test_letters_fold_to_their_plain_form_or_to_none() -> None:
    fold = alphabet().fold
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x2000)):
        plain_form = unicodedata.normalize("NFKD", chr(code)).lower()[0]
        assert fold[code] in {plain_form, " "}


def test_lexicon_finds_words_phrases_and_stems() -> None:
    classes = {"unit test": 4, "test": 5, "функц*": 6, "正则表": 7}
    keys = {entry: f.entry_keys(entry) for entry in classes}
    phrases = [(each[1], each[2]) for each in keys.values() if len(each) > 1]
    lexicon = f.build_lexicon({keys[entry][0]: group for entry, group in classes.items()}, phrases)
    assert lexicon.phrases() == sorted(phrases)
    found = f.extract("a unit test, a test, функциями 正则表达式", lexicon)
    assert found.hits == [(1, 4), (2, 5), (4, 5), (5, 6), (6, 7)]


def test_of_many_hits_the_first_and_last_are_kept() -> None:
    (test,) = f.entry_keys("test")
    lexicon = f.build_lexicon({test: 5}, [])
    assert [at for at, _ in f.extract("test " * 100, lexicon).hits] == [*range(32), *range(68, 100)]


@pytest.mark.parametrize("entry", ["one two three four", "", "abc*", "abcdefg*"])
def test_entries_that_cannot_be_found_are_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"stem|words long"):
        f.entry_keys(entry)


def test_clip_keeps_both_ends() -> None:
    text = "start " + "x" * 400_000 + " end"
    kept = f.clip(text)
    assert len(kept) == f.HEAD + f.TAIL + 1
    assert kept.startswith("start ")
    assert kept.endswith(" end")


def test_few_words_are_kept_and_none_that_is_long() -> None:
    lexicon = f.build_lexicon({}, [])
    letters = str.maketrans("01234567", "abcdefgh")
    for start in range(0, 2 * f._MOST_KEPT, 100):
        f.extract(" ".join([f"{at:o}".translate(letters) for at in range(start, start + 100)]), lexicon)
        assert 0 < len(lexicon.kept) <= f._MOST_KEPT
    f.extract("x" * (f._LONGEST_KEPT + 1), lexicon)
    assert all(len(word) <= f._LONGEST_KEPT for word in lexicon.kept)
