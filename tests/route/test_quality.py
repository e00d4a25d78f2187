"""The check as a whole: false alarms on good answers, faults of bad ones, the choice between two, bounded time."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.route import quality, quality_syntax
from app.route import quality_language as language
from app.route import quality_words as words
from app.route.quality import FAULTS, better, has_code_block, inspect
from tests.route import quality_corpus as corpus

GOOD = corpus.good()
BAD = corpus.bad()
ASK = {"messages": [{"role": "user", "content": "Tell me about the sea, please."}]}


def check(
    text: str, body: dict[str, Any] = ASK, kind: str | None = "chat", finish: str | None = "stop"
) -> tuple[str, ...]:
    return inspect(body, text, kind=kind, finish_reason=finish)


def test_there_are_enough_good_answers_by_hand_and_from_the_library() -> None:
    by_hand = sum(sample.name.startswith("good.jsonl") for sample in GOOD)
    assert by_hand >= 150
    assert len(GOOD) - by_hand >= 200


def test_false_alarms_stay_under_two_percent(capsys: pytest.CaptureFixture[str]) -> None:
    flagged = {sample.name: faults for sample in GOOD if (faults := sample.faults())}
    with capsys.disabled():
        print(f"\nfalse alarms: {len(flagged)} of {len(GOOD)} good answers {flagged or ''}")  # noqa: T201
    assert len(flagged) < 0.02 * len(GOOD), flagged


def test_false_alarms_stay_under_two_percent_where_no_reason_for_stopping_was_given() -> None:
    whole = [sample._replace(finish_reason=None) for sample in GOOD if sample.finish_reason == "stop"]
    flagged = {sample.name: faults for sample in whole if (faults := sample.faults())}
    assert len(flagged) < 0.02 * len(whole), flagged


@pytest.mark.parametrize("sample", BAD, ids=lambda sample: f"{sample.fault}-{sample.name}")
def test_the_fault_of_a_bad_answer_is_found_and_no_unrelated_one(sample: corpus.Sample) -> None:
    faults = sample.faults()
    assert sample.fault in faults
    # A loop inside an open fence is a loop that was cut off; no other answer of the set has two faults.
    assert set(faults) - {sample.fault} <= ({"cut_off"} if sample.fault == "repetition" else set())


@pytest.mark.parametrize("guard", [words.REFUSALS, words.FLAT_REFUSALS, words._GENRE])
def test_a_guard_hides_nothing(guard: words.Guarded) -> None:
    asks = [message["content"] for sample in (*GOOD, *BAD) for message in sample.body["messages"]]
    heads = [sample.text[:250] for sample in (*GOOD, *BAD)]
    texts = [text for text in (*asks, *heads) if isinstance(text, str)]
    found = [bool(guard.unguarded(text)) for text in texts]
    assert [bool(guard.search(text)) for text in texts] == found
    assert any(found)


def test_every_fault_has_ten_bad_answers() -> None:
    counts = Counter(sample.fault for sample in BAD)
    assert set(counts) == set(FAULTS)
    assert min(counts.values()) >= 10


def test_calls_with_tools_are_judged_by_what_is_about_them_alone() -> None:
    body = {**ASK, "tools": [{"type": "function", "function": {"name": "f"}}]}
    assert check("I'm sorry, but I can't help with that.", body) == ()
    assert check("", body) == ("empty",)
    assert check("The sea is", body, finish="length") == ("cut_off",)


def test_a_tool_call_without_text_is_no_empty_answer() -> None:
    assert inspect(ASK, "", kind="chat", finish_reason="tool_calls", tool_calls=True) == ()


def test_an_answer_cut_by_the_callers_own_small_limit_is_as_asked() -> None:
    assert check("The sea", {**ASK, "max_tokens": 2}, finish="length") == ()
    assert check("The sea", {**ASK, "max_tokens": 2_000}, finish="length") == ("cut_off",)


def test_faults_come_worst_first() -> None:
    faults = check("", finish="length")
    assert faults == ("empty", "cut_off")
    severities = [quality.SEVERITY[name] for name in FAULTS]
    assert severities == sorted(severities, reverse=True)


@pytest.mark.parametrize(
    ("draft", "polished", "served"),
    [
        (("too_short",), (), "polished"),
        (("empty",), ("too_short",), "polished"),
        (("no_code_block", "too_short"), ("no_code_block",), "polished"),
        (("too_short",), ("refusal",), "draft"),
        (("cut_off",), ("cut_off",), "draft"),
        (("too_short",), ("cut_off",), "draft"),
        ((), (), "draft"),
        (("cut_off", "repetition", "too_short"), ("refusal",), "draft"),
    ],
)
def test_the_answer_with_the_lesser_faults_is_served(
    draft: tuple[str, ...], polished: tuple[str, ...], served: str
) -> None:
    assert better(draft, polished) == (served == "polished")


@given(st.lists(st.sampled_from(FAULTS), unique=True), st.lists(st.sampled_from(FAULTS), unique=True))
def test_of_two_answers_at_most_one_is_the_better(one: list[str], other: list[str]) -> None:
    assert not (better(one, other) and better(other, one))


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("a\n```py\nx = 1\n```\n", True),
        ("~~~\nx\n~~~", True),
        ("  ```\n  x\n  ```", True),
        ("```js\nx", True),
        ("```\n```", False),
        ("Use `x` or ```y``` here.", False),
        ("", False),
    ],
)
def test_a_code_block_is_a_fence_with_something_in_it(text: str, has: bool) -> None:
    assert has_code_block(text) is has


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PIECES = st.sampled_from(
    [
        "```",
        "~~~",
        "python\n",
        "json\n",
        "\n",
        "{",
        "}",
        "def f(",
        "I can't help",
        "Error: ",
        "<think>",
        "word " * 9,
        "。",
        "0",
    ]
)
TEXTS = st.text(max_size=300) | st.lists(PIECES, max_size=40).map("".join)


@settings(max_examples=100, deadline=None)
@given(
    body=st.dictionaries(
        st.sampled_from(
            ["messages", "tools", "functions", "response_format", "stop", "max_tokens", "max_completion_tokens"]
        ),
        JSON
        | st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["system", "user", "assistant", "x"]), "content": TEXTS | JSON}
            )
        ),
    ),
    text=TEXTS,
    kind=st.sampled_from([None, "code", "chat", "creative", "translation", "summarise", "?"]),
    finish=st.sampled_from([None, "stop", "length", "content_filter", ""]),
    tool_calls=st.booleans(),
)
def test_whatever_the_body_and_the_text_the_faults_are_of_the_closed_set(
    body: dict[str, Any], text: str, kind: str | None, finish: str | None, tool_calls: bool
) -> None:
    faults = inspect(body, text, kind=kind, finish_reason=finish, tool_calls=tool_calls)
    assert set(faults) <= set(FAULTS)
    assert len(set(faults)) == len(faults)


MEGABYTE = 1_000_000
HOSTILE = {
    "one letter": "a" * MEGABYTE,
    "spaces": "x" + " " * MEGABYTE + "x",
    "line ends": "x" + "\n" * MEGABYTE + "x",
    "fences": "```\n" * (MEGABYTE // 4),
    "odd fences": "```a`\n" * (MEGABYTE // 6),
    "backticks": "`" * MEGABYTE,
    "words": "the sea is wide and " * (MEGABYTE // 20),
    "brackets": "```python\n" + "(" * MEGABYTE + "\n```",
    "broken blocks": ("```python\n" + "a = (1,\n" * 1_800 + "\n```\n") * (MEGABYTE // 15_000),
    "json": "[" * MEGABYTE,
    "sorry": "I'm sorry, but " * (MEGABYTE // 15),
    "runs": ("a" * 39 + "b") * (MEGABYTE // 40),
    "quotes": '"' * MEGABYTE,
    "think": "<think>" * (MEGABYTE // 7),
    "html": "<html>" + "<title>" * (MEGABYTE // 7),
    "traceback": "Traceback (most recent call last):\n" + "x\n" * (MEGABYTE // 2),
    "han": "海" * MEGABYTE,
    "mixed": "海a Я" * (MEGABYTE // 4),
    "numbers": "12 34 " * (MEGABYTE // 6),
    "equals": "a.b.c" * (MEGABYTE // 5),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_takes_bounded_work(name: str) -> None:
    text = HOSTILE[name]
    asks = [{"messages": [{"role": "user", "content": ask}]} for ask in ("Tell me about the sea.", text)]
    worst = max(min(_seconds(body, text) for _ in range(2)) for body in asks)
    assert worst < 2  # some 10 ms of this thread's CPU time; anything quadratic in a megabyte takes minutes


def _seconds(body: dict[str, Any], text: str) -> float:
    start = time.thread_time()
    for kind in ("chat", "code"):
        check(text, body, kind, None)
    check(text, {**body, "response_format": {"type": "json_object"}})
    return time.thread_time() - start


def test_other_languages_are_judged_where_their_grammar_is_installed_only() -> None:
    assert not quality_syntax.broken("cobol", "((((")
    assert quality_syntax.broken("javascript", "function f( {") == (
        quality_syntax._parser("tree_sitter_javascript", "language") is not None
    )


BROKEN = {
    "js": "function f( { return 1; }",
    "jsx": "export const A = () => (<div>{x}</div>;",
    "ts": "interface A { b: ; }",
    "tsx": "const a: string = = 1;",
    "go": 'func main() { fmt.Println("a" }',
    "rust": "fn f() -> i32 { let x = 3 x }",
    "java": "public class A { void f() { int x = ; } }",
}


@pytest.mark.parametrize("language", BROKEN)
def test_broken_code_of_other_languages_is_found(language: str) -> None:
    module, factory = quality_syntax._GRAMMARS[language]
    pytest.importorskip("tree_sitter", reason="the extra `syntax` is not installed")
    pytest.importorskip(module, reason="the extra `syntax` is not installed")
    assert quality_syntax._parser(module, factory) is not None
    assert check(f"```{language}\n{BROKEN[language]}\n```", kind="code") == ("broken_code",)


STOP_WORDS = st.lists(st.sampled_from(sorted(language._LANGUAGES_OF)), max_size=40).map(" ".join)


@settings(deadline=None)
@given(STOP_WORDS, STOP_WORDS)
def test_the_short_way_to_one_language_says_no_more_than_the_long_one(ask: str, answer: str) -> None:
    suspects = language._suspects(answer)
    newest = language._read(ask, language._MIN_LETTERS, language._ENOUGH_HITS)
    if suspects and language._speaks(ask, suspects):
        assert all(language._akin(suspect, newest) for suspect in suspects)


@settings(deadline=None)
@given(STOP_WORDS)
def test_bytes_are_read_as_text_is(text: str) -> None:
    text = text.encode("ascii", "ignore").decode()
    plain, wide = (language._read(each, 12, 3) for each in (text, f"{text} \u2019"))
    assert (plain.language, plain.script, plain.words()) == (wide.language, wide.script, wide.words())
