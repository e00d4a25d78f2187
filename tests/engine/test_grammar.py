from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest

from app.engine.grammar import Follower, Quotes, Vocabulary, compile_object, compile_schema, way_out
from tests.engine.test_forms import SCHEMAS, TREE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def vocabulary(qwen: Path) -> Vocabulary:
    from app.engine import adapter
    from app.engine.weights import read_folder

    loaded = adapter.load_now("q", read_folder(qwen))
    return Vocabulary(loaded.tokenizer._tokenizer, loaded.vocabulary, loaded.eos)


def grammar(name: str) -> Any:
    return compile_schema(SCHEMAS[name], "x") if SCHEMAS[name] else compile_object()


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_way_out_is_a_valid_document_from_wherever_it_starts(vocabulary: Vocabulary, name: str) -> None:
    """A random walk through the grammar; at each place the way out must end the document validly."""
    chance = random.Random(name)
    matcher, quotes, said = vocabulary.matcher(grammar(name)), Quotes(), list[int]()
    for _ in range(60):
        path = way_out(matcher, vocabulary, quotes)
        document = json.loads(vocabulary.ll.decode_str([*said, *path]))
        jsonschema.validate(document, SCHEMAS[name] or {"type": "object"})
        if matcher.is_stopped():
            break
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        free = [int(t) for t in np.flatnonzero(bits) if t not in vocabulary.eos]
        token = chance.choice(free or vocabulary.eos)
        if token in vocabulary.eos:
            break
        said.append(token)
        assert matcher.consume_token(token)
        quotes.feed(vocabulary.ll.decode_bytes([token]))


@pytest.mark.parametrize("name", SCHEMAS)
def test_one_token_lengthens_the_way_out_by_no_more_than_the_bound(vocabulary: Vocabulary, name: str) -> None:
    chance = random.Random(name)
    rules = grammar(name)
    matcher, quotes = vocabulary.matcher(rules), Quotes()
    before = len(way_out(matcher, vocabulary, quotes))
    for _ in range(80):
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        free = [int(t) for t in np.flatnonzero(bits) if t not in vocabulary.eos]
        if not free:
            break
        token = chance.choice(free)
        assert matcher.consume_token(token)
        quotes.feed(vocabulary.ll.decode_bytes([token]))
        after = len(way_out(matcher, vocabulary, quotes))
        assert after <= before + vocabulary.growth(rules)
        before = after


def test_a_limit_below_the_shortest_document_cannot_be_kept_but_harms_nothing(vocabulary: Vocabulary) -> None:
    follower = Follower(vocabulary, compile_schema(TREE, "x"), 4)
    for _ in range(4):
        words = follower._allowed()
        follower._left -= 1
        follower.take(int(np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))[0]))
    assert follower.closed_early
    assert not follower.complete


def test_after_the_end_only_the_end_token_and_one_more_call_is_survived(vocabulary: Vocabulary) -> None:
    follower = Follower(vocabulary, compile_schema({"const": 1}, "x"), 50)
    (one,) = vocabulary.ll.tokenize_str("1")
    follower.take(one)
    allowed = np.flatnonzero(np.unpackbits(follower._allowed().view(np.uint8), bitorder="little"))
    assert sorted(allowed) == vocabulary.eos
    follower.take(vocabulary.eos[0])
    follower.take(one)
    assert follower.complete


def test_a_token_off_the_grammar_is_an_error_and_not_silence(vocabulary: Vocabulary) -> None:
    follower = Follower(vocabulary, compile_schema({"const": 1}, "x"), 50)
    with pytest.raises(RuntimeError, match="not in the grammar"):
        follower.take(vocabulary.ll.tokenize_str("z")[0])


@pytest.mark.parametrize(
    ("text", "inside"),
    [(rb'{"a\"b', True), (rb'{"a\"b"', False), (rb'{"a\\"', False), (b'\\"', True), (b'""', False)],
)
def test_quotes_know_what_is_escaped(text: bytes, inside: bool) -> None:
    quotes = Quotes()
    for at in range(len(text)):
        quotes = quotes.copy()
        quotes.feed(text[at : at + 1])
    assert quotes.inside == inside
