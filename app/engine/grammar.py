"""Answers that fit a JSON schema, whatever the model would rather say: llguidance masks, on any device.

The mask is applied with plain array operations (llguidance's own mlx helper is for Metal only), and a closing rule
brings the document to a valid end before the token limit cuts it.
"""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import llguidance.hf
import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, LLTokenizer

from app.engine.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Free white space lets a weak model fill its whole answer with it.
_OVERRIDES: Any = {"whitespace_flexible": False}
_PATH_LIMIT = 4096  # tokens; a way out longer than any answer is none
_NODES_LIMIT = 1000  # subschemas looked at to bound how much one token can lengthen the way out
_PARTS_LIMIT = 48  # of them, whose way out is computed
# Where subschemas stand in a schema, and whether one token can add one of them to a document.
_NAMED = {"properties": True, "patternProperties": True, "$defs": False, "definitions": False}
_LISTED = dict.fromkeys(("anyOf", "oneOf", "prefixItems", "items", "additionalProperties"), True) | {"allOf": False}
_MARGIN = 1  # token
_PUNCTUATION = 4  # quotes, colon and comma around a property's name
_QUOTE, _BACKSLASH = 0x22, 0x5C


Words = np.ndarray[Any, np.dtype[np.uint32]]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar ready to be followed.

    Attributes:
        source: what llguidance reads.
        parts: grammars of what one token can begin, which bound how much it can lengthen the way out.
        longest_name: bytes of the longest property name or listed value, which that adds.
        tool_call: whether it is for a forced tool call.
    """

    source: str
    parts: tuple[str, ...] = ()
    longest_name: int = 0
    tool_call: bool = False


class Vocabulary:
    """A model's tokens as llguidance needs them, and the order in which the closing rule tries them.

    Building it takes 11 ms for 2,000 tokens and 640 ms for 97,000 (measured), so it is kept with the model.
    """

    def __init__(self, tokenizer: Any, size: int, eos: Iterable[int]) -> None:
        self.size = size
        self.words = (size + 31) // 32
        self._growth: dict[str, int] = {}
        self.eos = sorted(eos)
        self.ll: LLTokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=self.eos)
        self.in_string = self._order({b'"': 0, b'"}': 1, b'"]': 2})
        self.outside = self._order(
            {b"}": 0, b"]": 1, b"}}": 2, b"]}": 2, b",": 3, b"0": 5, b"null": 5, b'""': 6, b'"': 7}
        )

    def _order(self, first: dict[bytes, int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return all tokens, those of ``first`` in front, the others by length, bytes of long characters last."""
        texts = [self.ll.decode_bytes([token]) for token in range(self.size)]
        keys = [(first.get(text, 8), len(text) if text.isascii() else 64) for text in texts]
        return np.array(sorted(range(self.size), key=keys.__getitem__), dtype=np.int64)

    def matcher(self, grammar: Grammar) -> LLMatcher:
        """Return a fresh matcher for a grammar that ``compile_schema`` and its like have checked."""
        return LLMatcher(self.ll, grammar.source, log_level=0)

    def growth(self, grammar: Grammar) -> int:
        """Return the most tokens by which one token can lengthen the way out.

        That is the longest way out of any part that it can begin, and the name in front of it.
        """
        known = self._growth.get(grammar.source)
        if known is None:
            matchers = [LLMatcher(self.ll, part, log_level=0) for part in grammar.parts]
            longest = max((len(way_out(m, self, Quotes())) for m in matchers if not m.is_error()), default=0)
            known = longest + grammar.longest_name + _PUNCTUATION
            if len(self._growth) > _PARTS_LIMIT:
                self._growth.clear()
            self._growth[grammar.source] = known
        return known


def compile_schema(schema: dict[str, Any] | bool, param: str) -> Grammar:
    """Return the grammar of a JSON schema.

    Raises:
        CallerError: 400, the schema is broken or uses a keyword that cannot be enforced; the message names it.
    """
    parts, longest = _parts(schema, param)
    return _checked(Grammar(_source(schema, param), parts, longest), param)


def _source(schema: dict[str, Any] | bool, param: str) -> str:
    try:
        return str(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OVERRIDES))
    except ValueError as error:
        raise invalid(param, str(error)) from None


def _parts(schema: Any, param: str) -> tuple[tuple[str, ...], int]:
    """Return the grammars of what one token can add to a document, and the bytes of the longest name or choice in it.

    The root and what is required within something else are not added: the way out counts them from the beginning.
    """
    if not isinstance(schema, dict):
        return (), 0
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    queue: deque[tuple[dict[str, Any], bool]] = deque([(schema, _refers_elsewhere(schema))])
    added, longest, looked_at = list[dict[str, Any]](), 0, 0
    while queue and looked_at < _NODES_LIMIT:
        node, new = queue.popleft()
        looked_at += 1
        longest = max([longest, *_lengths(node)])
        if new or _chooses(node):
            added.append(node)
        queue += _below(node)
    if queue or len(added) > _PARTS_LIMIT:
        added = [schema, *added[:_PARTS_LIMIT]]  # too much to look at: the whole is longer than most of its parts
    return tuple(_source({**shared, **node}, param) for node in added), longest  # with the root's definitions at hand


def _refers_elsewhere(schema: dict[str, Any]) -> bool:
    """Whether a reference leads to the root or into the middle of it, so that one token can add all of it again."""
    places = re.findall(r'"\$ref": "#([^"]*)', json.dumps(schema))
    return any(not place.startswith(("/$defs/", "/definitions/")) for place in places)


def _chooses(node: dict[str, Any]) -> bool:
    """Whether a value may be of several types: the way out takes the shortest, and one token can begin another."""
    return not isinstance(node.get("type"), str) and not ({"$ref", "const", "enum"} & node.keys())


def _lengths(node: dict[str, Any]) -> Iterator[int]:
    """Yield the bytes of optional properties' names, and of listed values, of which the way out takes the shortest."""
    for name in node.get("properties") or ():
        if name not in _required(node):
            yield len(str(name).encode())
    for value in node.get("enum") or ():
        yield len(json.dumps(value))


def _required(node: dict[str, Any]) -> list[Any]:
    names = node.get("required")
    return names if isinstance(names, list) else []


def _below(node: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the subschemas with whether one token can add them; definitions are added by what refers to them."""
    for key, new in _NAMED.items():
        value = node.get(key)
        for name, below in value.items() if isinstance(value, dict) else ():
            if isinstance(below, dict):
                yield below, new and not (key == "properties" and name in _required(node))
    for key, new in _LISTED.items():
        value = node.get(key)
        for below in value if isinstance(value, list) else [value]:
            if isinstance(below, dict):
                yield below, new


def compile_object() -> Grammar:
    """Return the grammar of any JSON object."""
    return compile_schema({"type": "object"}, "response_format")


def compile_call(tools: list[dict[str, Any]], opening: str, closing: str, param: str) -> Grammar:
    r"""Return the grammar of exactly one call of one of the tools, between the model's own markers.

    Args:
        tools: OpenAI's tool objects.
        opening: lark for what stands before the call's JSON object, e.g. ``<[7]> "\n"``; may be empty.
        closing: the same for what stands after it.
        param: the field to blame.
    """
    calls = {"anyOf": [_call_schema(tool["function"]) for tool in tools]}
    lark = f"start: {opening} call {closing}\ncall: %json {json.dumps(calls)}\n"
    return _checked(Grammar(LLMatcher.grammar_from_lark(lark), *_parts(calls, param), tool_call=True), param)


def _call_schema(function: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": function["name"]},
            "arguments": function.get("parameters") or {"type": "object", "properties": {}},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _checked(grammar: Grammar, param: str) -> Grammar:
    error = LLMatcher.validate_grammar(grammar.source)
    if error and not error.startswith("WARNING"):
        raise invalid(param, f"this schema cannot be enforced: {error.splitlines()[0]}")
    return grammar


class Quotes:
    """Whether a JSON text that arrives in pieces is inside a string; there a brace is only a character."""

    def __init__(self) -> None:
        self.inside = False
        self._escaped = False

    def feed(self, text: bytes) -> None:
        """Follow more bytes of the text."""
        for byte in text:
            if self._escaped:
                self._escaped = False
            elif byte == _BACKSLASH and self.inside:
                self._escaped = True
            elif byte == _QUOTE:
                self.inside = not self.inside

    def copy(self) -> Quotes:
        """Return an independent copy."""
        other = Quotes()
        other.inside, other._escaped = self.inside, self._escaped
        return other


class Follower:
    """Keeps one sequence inside its grammar, as a logits processor.

    Attributes:
        closed_early: whether the closing rule ended the document because the tokens ran out.
        taken: tokens consumed so far.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: Grammar, max_tokens: int) -> None:
        self._vocabulary = vocabulary
        self._matcher = vocabulary.matcher(grammar)
        if self._matcher.is_error():
            raise invalid("response_format", self._matcher.get_error())
        self._growth = vocabulary.growth(grammar)
        self._left = max_tokens
        self.taken = 0
        self._look_in = 0
        self._started = self._over = self.closed_early = False
        self._known: list[int] = []
        self._way_out: list[int] = []
        self._quotes = Quotes()

    @property
    def complete(self) -> bool:
        """Whether the document so far is valid and nothing can be added to it."""
        return self._over or bool(self._matcher.is_stopped())

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Consume the last token and mask what the grammar does not allow next: a processor for one sequence alone."""
        mx.async_eval(logits)  # type: ignore[no-untyped-call]  # the model computes while the mask is made
        token = int(tokens[-1].item()) if self._started else None  # type: ignore[arg-type]
        self._started = True
        bits = np.unpackbits(self.after(token).view(np.uint8), bitorder="little", count=logits.shape[-1])
        return mx.where(mx.array(bits.view(np.bool_))[None], logits, -float("inf"))

    def after(self, token: int | None) -> Words:
        """Consume a token, None at the beginning, and return what is allowed next, one bit a token.

        Raises:
            RuntimeError: the token is not allowed here, which the mask rules out.
        """
        if token is not None:
            self.take(token)
        words = self._allowed()
        self._left -= 1
        return words

    def anything(self) -> Words:
        """Return the words that allow every token."""
        return np.full(self._vocabulary.words, 0xFFFFFFFF, dtype=np.uint32)

    def take(self, token: int) -> None:
        """Follow one token of the answer.

        Raises:
            RuntimeError: the token is not allowed here, which the mask rules out.
        """
        self.taken += 1
        if self._over:
            return  # steps are pipelined: there is one more call after the end token
        if token in self._vocabulary.eos:
            self._over = True
            return
        if self._way_out:
            self._way_out.pop(0)
        if not self._matcher.consume_token(token):
            raise RuntimeError(f"token {token} is not in the grammar: {self._matcher.get_error()}")
        self._quotes.feed(self._vocabulary.ll.decode_bytes([token]))

    def _allowed(self) -> Words:
        if self.complete:
            return self._only(self._vocabulary.eos)
        if self.closed_early or self._must_close():
            return self._only(self._way_out[:1] or self._vocabulary.eos)
        return np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint32)[: self._vocabulary.words]

    def _must_close(self) -> bool:
        """Decide whether the way out must be taken now.

        A token costs one of those left and lengthens the way out by at most ``_growth``, so after one look there is no
        need for another until the two could meet.
        """
        self._look_in -= 1
        if self._look_in > 0:
            return False
        path = self._known = self._look()
        spare = self._left - len(path) - self._growth - _MARGIN
        if spare > 0:
            self._look_in = 1 + spare // (self._growth + 1)
            return False
        self.closed_early, self._way_out = True, list(path)
        return True

    def _look(self) -> list[int]:
        """Return a way out: the one found last where it still leads to the end, as it does within a string."""
        known = [*self._known, self._vocabulary.eos[0]]
        if self._known and self._matcher.validate_tokens(known) == len(known):
            return self._known
        return way_out(self._matcher, self._vocabulary, self._quotes)

    def _only(self, tokens: list[int]) -> Words:
        words = np.zeros(self._vocabulary.words, dtype=np.uint32)
        for token in tokens:
            words[token // 32] |= np.uint32(1 << (token % 32))
        return words


def way_out(matcher: LLMatcher, vocabulary: Vocabulary, quotes: Quotes) -> list[int]:
    """Return tokens after which ``matcher`` would accept, none if it does now; a short way, not always the shortest."""
    probe, inside, path = matcher.deep_copy(), quotes.copy(), list[int]()
    while len(path) < _PATH_LIMIT and not (probe.is_accepting() or probe.is_stopped()):
        step = list(probe.compute_ff_tokens()) or _closing_token(probe, vocabulary, inside)
        if not step or not probe.consume_tokens(step):
            break
        inside.feed(vocabulary.ll.decode_bytes(step))
        path += step
    return path


def _closing_token(probe: LLMatcher, vocabulary: Vocabulary, quotes: Quotes) -> list[int]:
    allowed = np.unpackbits(np.frombuffer(probe.compute_bitmask(), dtype=np.uint8), bitorder="little")
    order = vocabulary.in_string if quotes.inside else vocabulary.outside
    fitting = order[allowed[order] == 1]
    return [int(fitting[0])] if len(fitting) else []
