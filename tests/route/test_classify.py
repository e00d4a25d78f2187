"""The shipped classifier: what it says of prompts it never saw, of conversations, of malformed and of huge bodies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.route.classify import KINDS, classify, difficulty, load

DATA = Path(__file__).parent.parent / "data" / "confusion.jsonl"
CONFUSION: list[dict[str, str]] = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]


def ask(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def kind(text: str) -> str | None:
    return classify(ask(text)).kind


def complexity(text: str) -> int:
    found = classify(ask(text)).complexity
    assert found is not None
    return found


def test_confusion_set_is_200_prompts_in_six_languages() -> None:
    assert len(CONFUSION) == 200
    assert {row["lang"] for row in CONFUSION} == {"en", "ru", "es", "fr", "de", "zh"}
    assert {row["kind"] for row in CONFUSION} == set(KINDS)


def test_confusion_set_code_against_the_rest() -> None:
    table = Counter((row["kind"] == "code", kind(row["prompt"]) == "code") for row in CONFUSION)
    hit, false, missed = table[True, True], table[False, True], table[True, False]
    assert 2 * hit / (2 * hit + false + missed) >= 0.90
    assert hit / (hit + false) >= 0.93


def test_confusion_set_kinds() -> None:
    right = sum(kind(row["prompt"]) == row["kind"] for row in CONFUSION)
    assert right / len(CONFUSION) >= 0.85


@pytest.mark.parametrize("text", ["How do I build a habit of reading?", "a class on Roman history", "what API means"])
def test_words_of_code_in_other_asks(text: str) -> None:
    assert kind(text) != "code"


@pytest.mark.parametrize(
    "text", ["hi", "What is 2+2?", "What is the capital of France?", "Спасибо!", "你好", "Merci !"]
)
def test_trivial_asks_are_1_to_3(text: str) -> None:
    assert complexity(text) <= 3


@pytest.mark.parametrize(
    "text",
    [
        "Prove that a bounded monotone sequence of real numbers converges, and derive the rate for Newton's iteration.",
        "Design a distributed ledger that survives partitions with exactly-once posting; discuss failure modes.",
        "Derive the equilibrium constant from the Gibbs free energy and justify the mechanism with orbital arguments.",
    ],
)
def test_graduate_and_design_asks_are_8_to_10(text: str) -> None:
    assert complexity(text) >= 8


@pytest.mark.parametrize(
    "text",
    [
        "Write an email to my landlord asking to repair the heating before the winter and to lower the rent meanwhile.",
        "Write a Python function that parses a log file and returns the number of errors per hour.",
        "Explain the causes of the French Revolution and which of them mattered most.",
    ],
)
def test_middling_asks_are_4_to_7(text: str) -> None:
    assert 4 <= complexity(text) <= 7


def test_difficulty_orders_a_sum_below_a_proof() -> None:
    assert difficulty("What is 3 + 4?") < difficulty("Prove that there are infinitely many primes of the form 4k+3.")


def test_short_follow_up_leans_on_the_conversation() -> None:
    follow_up = "now make it faster"
    alone = classify(ask(follow_up)).kind
    turns = [
        {"role": "user", "content": "Write a Python function that finds all primes below n"},
        {"role": "assistant", "content": "```python\ndef primes(n): ...\n```"},
        {"role": "user", "content": follow_up},
    ]
    assert (alone, classify(turns).kind) == ("chat", "code")


def test_change_of_subject_is_judged_by_itself() -> None:
    turns = [
        {"role": "user", "content": "Write a Python function that finds all primes below n"},
        {"role": "assistant", "content": "```python\ndef primes(n): ...\n```"},
        {"role": "user", "content": "Thanks! What is the capital of Portugal?"},
    ]
    assert classify(turns).kind == "chat"


def test_parts_are_joined_and_images_counted() -> None:
    parts = [{"type": "text", "text": "Write a poem about"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    verdict = classify([{"role": "user", "content": [*parts, {"type": "text", "text": "this autumn forest"}]}])
    assert verdict.kind == "creative"
    assert "1 image" in verdict.reasons
    assert verdict.prompt_tokens is not None
    assert verdict.prompt_tokens > 765


def test_reasons_quote_the_prompt_and_name_what_was_seen() -> None:
    text = (
        "Write a function that sorts names.\n```python\nnames = []\n```\n"
        + "The office closes at noon on Friday. " * 300
    )
    reasons = classify(ask(text), tools=True).reasons
    assert reasons[0].startswith("asks for code: 'Write a function")
    assert "holds a fenced block" in reasons
    assert "offers tools" in reasons
    assert any(reason.startswith("long prompt (") for reason in reasons)


FIELDS = ("role", "content", "type", "text", "image_url", "tool_calls")
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(JSON, max_size=4))
def test_never_raises_whatever_the_messages(messages: list[Any]) -> None:
    verdict = classify(messages)
    assert verdict.kind in KINDS
    assert verdict.complexity in range(1, 11)


@pytest.mark.parametrize(
    "messages", [[], None, "text", {"role": "user"}, [None], [{"role": "user", "content": "\ud800"}]]
)
def test_malformed_bodies_get_a_verdict(messages: Any) -> None:
    assert classify(messages).kind in KINDS


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(), max_size=3000))
def test_same_text_same_verdict(text: str) -> None:
    assert classify(ask(text)) == classify(ask(text))


def fastest_s(text: str) -> float:
    messages = ask(text)
    best = float("inf")
    for _ in range(200):
        start = time.perf_counter()
        classify(messages)
        best = min(best, time.perf_counter() - start)
    return best


@pytest.mark.parametrize("unit", ["word ", "代码", "a", "((((", "\n", "```"])
def test_time_is_bounded_whatever_the_length(unit: str) -> None:
    short = fastest_s((unit * 2000)[:2000])
    assert fastest_s((unit * 400_000)[:400_000]) < 2 * short + 50e-6


def test_tokens_follow_length_and_script() -> None:
    english = classify(ask("word " * 2000)).prompt_tokens or 0
    chinese = classify(ask("代码" * 5000)).prompt_tokens or 0
    assert 2000 <= english <= 3000
    assert 6000 <= chinese <= 12000


def test_weights_are_read_once_and_on_demand() -> None:
    assert load() is load()
    code = (
        "import sys, app.route.classify as c; assert c.load.cache_info().currsize == 0; "
        "c.classify([]); assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
