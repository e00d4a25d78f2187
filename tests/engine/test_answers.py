"""Chat and completions over a real socket with a real model."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tests.engine import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.process import Engine


def text_of(events: list[Any]) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for event in events
        if isinstance(event, dict)
        for choice in event.get("choices", [])
    )


def test_stream_and_plain_answer_say_the_same(engine: Engine, qwen: Path) -> None:
    messages = [{"role": "user", "content": "hello there"}]
    options: dict[str, Any] = {"max_tokens": 24, "seed": 5, "logit_bias": tiny.endless(qwen)}
    plain = engine.chat(qwen, messages=messages, **options)
    options["stream_options"] = {"include_usage": True}
    events = engine.stream("/v1/chat/completions", model=str(qwen), messages=messages, **options)
    assert text_of(events) == plain["choices"][0]["message"]["content"]
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"] == []
    used = {key: events[-2]["usage"][key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")}
    assert used == {key: plain["usage"][key] for key in used}
    assert events[-3]["choices"][0]["finish_reason"] == plain["choices"][0]["finish_reason"] == "length"


def test_a_seed_gives_the_same_answer_alone_and_in_a_batch(engine: Engine, qwen: Path) -> None:
    def ask(seed: int) -> str:
        return engine.content(qwen, f"number {seed}", max_tokens=40, seed=seed, temperature=0.9, top_p=0.95, top_k=60)

    alone = [ask(seed) for seed in range(12)]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, reversed(range(12))))
    assert alone == together[::-1]
    assert len(set(alone)) == 12


def test_without_a_seed_answers_differ(engine: Engine, qwen: Path) -> None:
    assert len({engine.content(qwen, max_tokens=24) for _ in range(4)}) == 4


def test_n_choices_share_the_prompt_and_differ(engine: Engine, qwen: Path) -> None:
    options: dict[str, Any] = {"max_tokens": 16, "seed": 5, "logit_bias": tiny.endless(qwen)}
    body = engine.chat(qwen, "several please", n=4, **options)
    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert len(set(texts)) == 4
    assert body["usage"]["completion_tokens"] == 64
    assert texts[0] == engine.content(qwen, "several please", **options)
    assert texts == [
        choice["message"]["content"] for choice in engine.chat(qwen, "several please", n=4, **options)["choices"]
    ]


def test_stop_string_across_token_boundaries_cuts_there(engine: Engine, qwen: Path) -> None:
    whole = engine.content(qwen, max_tokens=60, seed=9)
    for at in (7, 11, 20):
        stop = whole[at : at + 5]
        body = engine.chat(qwen, max_tokens=60, seed=9, stop=[stop, "never seen"])
        assert body["choices"][0]["message"]["content"] == whole[: whole.index(stop)]
        assert body["choices"][0]["finish_reason"] == "stop"


def test_logprobs_only_where_asked_and_best_first(engine: Engine, qwen: Path) -> None:
    assert engine.chat(qwen, max_tokens=4)["choices"][0]["logprobs"] is None
    body = engine.chat(qwen, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3)
    entries = body["choices"][0]["logprobs"]["content"]
    assert len(entries) == 6
    for entry in entries:
        tops = [top["logprob"] for top in entry["top_logprobs"]]
        assert tops == sorted(tops, reverse=True)
        assert len(tops) == 3
        assert entry["logprob"] == tops[0] <= 0
    written = b"".join(bytes(entry["bytes"]) for entry in entries).decode("utf-8", "replace")
    assert written == body["choices"][0]["message"]["content"]


def test_logit_bias_and_penalties_change_what_is_said(engine: Engine, qwen: Path) -> None:
    plain = engine.chat(qwen, max_tokens=8, temperature=0, logprobs=True, top_logprobs=1)
    forced = engine.content(qwen, max_tokens=8, temperature=0, logit_bias={"70": 100})
    assert len(set(forced)) == 1
    free = engine.content(qwen, max_tokens=8, temperature=0, logit_bias={"70": 100}, frequency_penalty=2)
    assert free == forced  # 2 a token does not outweigh 100
    assert plain["choices"][0]["message"]["content"] != forced
    once = engine.chat(qwen, max_tokens=40, temperature=0, presence_penalty=2, frequency_penalty=2)
    assert once["choices"][0]["message"]["content"] != engine.content(qwen, max_tokens=40, temperature=0)


def test_the_second_turn_reads_only_what_is_new(engine: Engine, qwen: Path) -> None:
    messages = [{"role": "user", "content": "a long question " * 40}]
    first = engine.chat(qwen, messages=messages, max_tokens=12, seed=1)
    answer = first["choices"][0]["message"]["content"]
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "and then?"}]
    second = engine.chat(qwen, messages=messages, max_tokens=4)
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"]
    assert second["usage"]["prompt_tokens"] > second["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_an_assistant_prefix_is_continued(engine: Engine, qwen: Path) -> None:
    """What a cut stream has shown is gone on with, token for token."""
    question = {"role": "user", "content": "tell me"}
    whole = engine.content(qwen, messages=[question], max_tokens=30, temperature=0)
    shown = whole[:12]
    rest = engine.content(
        qwen, messages=[question, {"role": "assistant", "content": shown}], max_tokens=30, temperature=0
    )
    prompt = engine.post(
        "/v1/completions",
        model=str(qwen),
        prompt=f"<|im_start|>user\ntell me<|im_end|>\n<|im_start|>assistant\n{shown}",
        max_tokens=30,
        temperature=0,
    ).json()
    assert rest == prompt["choices"][0]["text"]


def test_completions_take_many_prompts_at_once(engine: Engine, qwen: Path) -> None:
    prompts = [f"prompt {i}" for i in range(6)]
    body = engine.post("/v1/completions", model=str(qwen), prompt=prompts, max_tokens=8, seed=2, n=2, logprobs=2).json()
    assert [choice["index"] for choice in body["choices"]] == list(range(12))
    alone = engine.post("/v1/completions", model=str(qwen), prompt="prompt 4", max_tokens=8, seed=2).json()
    assert body["choices"][8]["text"] == alone["choices"][0]["text"]
    assert max(len(choice["logprobs"]["tokens"]) for choice in body["choices"]) == 8
    assert body["usage"]["completion_tokens"] == sum(len(c["logprobs"]["tokens"]) for c in body["choices"])


def test_reasoning_is_split_from_the_answer(engine: Engine, folders: dict[str, Path]) -> None:
    """The template opens the block, so a random model that never closes it has reasoned all the time."""
    options: dict[str, Any] = {"max_tokens": 12, "logit_bias": tiny.endless(folders["think"])}
    message = engine.chat(folders["think"], **options)["choices"][0]["message"]
    assert message["reasoning_content"]
    assert message["content"] == ""
    plain = engine.chat(folders["think"], **options, reasoning_effort="none")["choices"][0]["message"]
    assert "reasoning_content" not in plain
    assert plain["content"]


def test_many_streams_at_once_all_end_properly(engine: Engine, qwen: Path) -> None:
    def ask(number: int) -> list[Any]:
        messages = [{"role": "user", "content": f"stream {number}"}]
        return engine.stream(
            "/v1/chat/completions",
            model=str(qwen),
            messages=messages,
            max_tokens=10 + number % 7,
            logit_bias=tiny.endless(qwen),
        )

    with ThreadPoolExecutor(24) as pool:
        for events in pool.map(ask, range(48)):
            assert events[-1] == "[DONE]"
            assert text_of(events)
            assert json.dumps(events)
