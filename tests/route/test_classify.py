"""The shipped classifier: what it says of prompts it never saw, of conversations, of malformed and of huge bodies."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.call import Reasons
from app.route import features as f
from app.route import packed
from app.route.classify import (
    _MOST_SYSTEMS,
    _SKELETON_UNIT,
    _TIMES,
    KINDS,
    WEIGHTS,
    _system_code,
    classify,
    difficulty,
    load,
    score,
)

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


EVERYDAY: list[tuple[int, int, str]] = [
    (1, 1, "hi"),
    (1, 2, "thanks, that helped!"),
    (1, 2, "Привет!"),
    (1, 2, "你好"),
    (1, 2, "Merci !"),
    (1, 2, "What is 2+2?"),
    (1, 3, "What is 15% of 80?"),
    (1, 3, "Сколько будет 7*8?"),
    (1, 2, "What is the capital of Peru?"),
    (1, 2, "Who painted the Mona Lisa?"),
    (1, 3, "Tell me a joke about cats"),
    (1, 3, "How do I boil an egg?"),
    (2, 4, "Write a haiku about rain"),
    (2, 4, "Write a short poem about autumn leaves"),
    (2, 4, "Escribe un haiku sobre el mar"),
    (2, 4, "Write a thank-you note to my neighbour"),
    (2, 5, "Write a 500-word essay about the French Revolution"),
    (2, 4, 'Translate "where is the station" into Italian'),
    (2, 4, "Summarize this email"),
    (2, 4, "Recommend a good book for a long flight"),
    (2, 4, "Give me three tips for better sleep"),
    (2, 4, "What should I cook tonight with rice and eggs?"),
    (3, 5, "Explain how photosynthesis works"),
    (3, 5, "Explain the difference between a virus and a bacterium"),
    (3, 5, "Extract the dates from this text: we met on 3 May and again on 9 June."),
    (3, 5, "Summarize this email: the meeting moves to Tuesday at ten, please bring the signed forms and the badge."),
    (3, 6, "A train leaves at 9 am at 60 km/h, another at 10 am at 90 km/h. When does the second one catch up?"),
    (3, 6, "What are the pros and cons of nuclear energy?"),
    (3, 7, "Plan a two-week trip through Japan on a budget of 3,000 dollars with a day-by-day itinerary"),
    (4, 7, "Explain the causes of the French Revolution and which of them mattered most."),
    (4, 7, "Write a Python function that reverses a list"),
    (4, 7, "Write a Python function that parses a log file and returns the number of errors per hour."),
    (6, 9, "Write a SQL query that returns the ten customers with the highest revenue per region, with ties."),
    (7, 9, "Compare three database engines for a multi-tenant SaaS and recommend one with a migration plan"),
    (7, 9, "Compare Kafka, RabbitMQ and NATS for an event-driven order platform, with failure modes, costs and risks"),
    (7, 9, "Design the storage layer of a photo sharing service for 100 million users; justify your trade-offs"),
    (8, 10, "Design a distributed rate limiter that survives a region outage; discuss consistency and failure modes"),
    (8, 10, "Implement a thread-safe LRU cache with expiry in Go, with tests and benchmarks."),
    (7, 10, "Prove that there are infinitely many primes"),
    (8, 10, "Prove that every compact metric space is separable."),
    (8, 10, "Prove that the square root of 2 is irrational and generalise to all non-square integers."),
    (
        8,
        10,
        "Derive the equilibrium constant from the Gibbs free energy and justify the mechanism with orbital arguments.",
    ),
]


@pytest.mark.parametrize(("low", "high", "text"), EVERYDAY)
def test_complexity_of_everyday_asks(low: int, high: int, text: str) -> None:
    assert low <= complexity(text) <= high


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


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])  # slow on a busy machine
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


@pytest.mark.parametrize("unit", ["word ", "代码", "a", "((((", "\n", "```"])
def test_work_is_bounded_whatever_the_length(unit: str) -> None:
    long = f.clip(unit * 400_000)
    assert len(long) <= f.HEAD + f.TAIL + 1
    found = f.extract(long, load().lexicon)
    assert found.grams <= 4 * len(long)
    assert len(found.hits) <= f.MAX_HITS


def test_no_sum_leaves_its_lane() -> None:
    chars, most = f.HEAD + f.TAIL + 5, 3 + 2 + f.MAX_HITS * 3 - 1
    neighbours = [pairs * _TIMES[math.ceil(chars / pairs)] for pairs in range(1, f.SHAPE + 1)]
    classes = [(count - 3) * round(_SKELETON_UNIT * f.class_value(count)) for count in range(3, most + 1)]
    assert 127 * max(*neighbours, 3 * _SKELETON_UNIT + max(classes), 4 * chars) < 2**31


def test_scores_are_the_sums_of_weights_times_values() -> None:
    """Of a whole text, from the file, by the formula: numbers of one head after the other."""
    weights = packed.read(WEIGHTS)
    text = "Write a function that parses a log file. Which errors are there per hour? \u00dcberpr\u00fcfe auch 日志。"
    found = f.extract(text, load().lexicon)
    rows, skeleton, shape = ([packed.unpack(row) for row in table.rows()] for table in weights.tables)
    count = len(found.skeleton)
    values = [
        [(rows[at], f.row_value(found.grams)) for at in found.rows()],
        [(skeleton[at], 1.0 if place < f.N_SIZES else f.class_value(count)) for place, at in enumerate(found.skeleton)],
        [(shape[at], value) for at, value in found.neighbours()],
    ]
    scores = score(load(), found)
    for head, said in enumerate((scores.code, *scores.others, scores.hard, scores.steps)):
        each = (
            table.steps[head] * sum(row[head] * value for row, value in seen)
            for table, seen in zip(weights.tables, values, strict=True)
        )
        assert said == pytest.approx(weights.bias[head] + sum(each), abs=1e-3)


def test_tokens_follow_length_and_script() -> None:
    english = classify(ask("word " * 2000)).prompt_tokens or 0
    chinese = classify(ask("代码" * 5000)).prompt_tokens or 0
    assert 2000 <= english <= 3000
    assert 6000 <= chinese <= 12000


def test_weights_are_read_once_and_on_demand() -> None:
    assert load() is load()
    code = (
        "import sys, app.route.classify as c; assert c.load.cache_info().currsize == 0; "
        "c.classify([{'role': 'user', 'content': 'caf\u00e9'}]); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=300), st.sampled_from(("continue", "another one, please", "make it shorter", "and now?", "ok")))
def test_a_system_prompt_that_was_read_before_counts_the_same(system: str, text: str) -> None:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    model = load()._replace(systems={})
    assert classify(messages, model=model) == classify(messages, model=model)
    assert classify(messages) == classify(messages, model=model._replace(systems={}))


def test_few_system_prompts_are_remembered() -> None:
    model = load()._replace(systems={})
    for at in range(_MOST_SYSTEMS + 2):
        _system_code(model, f"You are number {at}.")
        assert len(model.systems) <= _MOST_SYSTEMS
    assert len(model.systems) == 2


def test_reasons_are_read_as_a_tuple_is() -> None:
    reasons = Reasons(("asks for chat", "complexity 2 of 10", "offers tools"), lambda: (": 'hello'", ""))
    told = ("asks for chat: 'hello'", "complexity 2 of 10", "offers tools")
    assert reasons == told
    assert (*reasons,) == told
    assert (len(reasons), reasons[0], reasons[1:], repr(reasons)) == (3, told[0], told[1:], repr(told))
    assert hash(reasons) == hash(told)
    assert reasons != told[:1]
