from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.call import Ask, Hints, Plan, Target, Verdict
from app.route.cacheable import cache_key, cacheable, whole
from app.settings import Settings


def _settings(url: str = "http://up/v1", **more: Any) -> Settings:
    return Settings(backends={"up": {"base_url": url}}, **more)


_SETTINGS = _settings()
_PLAN = Plan((Target("up", "m"), Target("up", "spare")))


def _ask(endpoint: str = "chat", *, no_cache: bool = False, **body: Any) -> Ask:
    messages = {"messages": [{"role": "user", "content": "hi"}]} if endpoint == "chat" else {"input": "hi"}
    return Ask(endpoint, messages | body, Hints(no_cache=no_cache), "tenant", 0.0, "id")


def _key(ask: Ask, plan: Plan = _PLAN, settings: Settings = _SETTINGS, prompt: str = "") -> str:
    return cache_key(ask, Verdict(kind="chat"), plan, settings, prompt)


@pytest.mark.parametrize(
    ("mode", "ask", "yes"),
    [
        ("deterministic", _ask(temperature=0), True),
        ("deterministic", _ask(temperature=0.0, stream=True, tools=[{}]), True),
        ("deterministic", _ask(), False),
        ("deterministic", _ask(temperature=None), False),
        ("deterministic", _ask(temperature=0.1), False),
        ("deterministic", _ask(seed=1), False),
        ("deterministic", _ask("embeddings"), True),
        ("deterministic", _ask("moderations"), False),
        ("deterministic", _ask(temperature=0, no_cache=True), False),
        ("deterministic", _ask(temperature=0, web_search_options={"search_context_size": "low"}), False),
        ("all", _ask(), True),
        ("all", _ask(no_cache=True), False),
        ("all", _ask("images"), False),
        ("off", _ask(temperature=0), False),
        ("off", _ask("embeddings"), False),
    ],
)
def test_which_calls_are_answered_from_memory(mode: Any, ask: Ask, *, yes: bool) -> None:
    assert cacheable(ask, _settings(cache=mode)) is yes


@pytest.mark.parametrize(
    "more",
    [
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"store": True, "service_tier": "flex", "prompt_cache_key": "p", "safety_identifier": "s"},
        {"model": "another name of the same target"},
    ],
)
def test_what_does_not_matter_for_the_answer_does_not_matter_here(more: dict[str, Any]) -> None:
    assert _key(_ask(**more)) == _key(_ask())


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 1},
        {"max_tokens": 5},
        {"seed": 1},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "system", "content": "hi"}]},
        {"n": 2},
        {"x_unknown": 1},
    ],
)
def test_every_other_field_matters(more: dict[str, Any]) -> None:
    assert _key(_ask(**more)) != _key(_ask())


def test_whom_and_what_it_goes_to_matters() -> None:
    polishes = replace(_PLAN, check=True, on_weak="polish")
    others = [
        _key(replace(_ask(), tenant="other")),
        _key(_ask("embeddings")),
        _key(_ask(), replace(_PLAN, candidates=(Target("up", "spare"),))),
        _key(_ask(), settings=_settings("http://b/v1")),
        _key(_ask(), polishes, prompt="as before"),
        _key(_ask(), polishes, prompt="edited"),
        _key(_ask(), polishes, _settings(model_polish="openai/x"), prompt="edited"),
        _key(_ask(), replace(_PLAN, check=True, on_weak="escalate")),
    ]
    assert len({_key(_ask()), *others}) == len(others) + 1
    assert _key(_ask(), replace(_PLAN, candidates=_PLAN.candidates[:1])) == _key(_ask())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _turned(inner) for name, inner in reversed(value.items())}
    return [_turned(inner) for inner in value] if isinstance(value, list) else value


@given(_JSON)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert _key(_ask(x=value)) == _key(_ask(x=_turned(value)))


@given(_JSON, _JSON)
def test_different_values_do(one: Any, other: Any) -> None:
    same = _as_json(one) == _as_json(other)
    assert (_key(_ask(x=one)) == _key(_ask(x=other))) is same


def _as_json(value: Any) -> str:
    import json

    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize(
    ("reasons", "yes"),
    [
        (["stop"], True),
        (["tool_calls", "stop"], True),
        (["length"], False),
        (["stop", "length"], False),
        ([None], False),
    ],
)
def test_a_truncated_answer_is_not_whole(reasons: list[Any], *, yes: bool) -> None:
    assert whole(reasons) is yes
