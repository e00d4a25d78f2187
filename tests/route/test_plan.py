from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.backend.catalog import Catalog
from app.call import Ask, Hints, Plan, Target, Verdict
from app.errors import CallerError, PolicyError, SluiceError
from app.route import known
from app.route.needs import needs
from app.route.plan import make_plan
from app.settings import Settings, load

_BASE = "MLX_ENABLED=false\nBACKENDS__UP__BASE_URL=http://10.0.0.1/v1\nGROQ_API_KEY=k\nMODEL_LARGE=up/large,groq/llama-3.3-70b-versatile\n"


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    path = tmp_path / ".env"
    path.write_text(_BASE + getattr(request, "param", ""))
    return load(path)


def _plan(settings: Settings, model: str | None = None, endpoint: str = "chat", **body: Any) -> Plan:
    body = {"messages": [{"role": "user", "content": "x"}], **({"model": model} if model is not None else {}), **body}
    ask = Ask(endpoint, body, Hints(), "t", 0.0, "r")
    return make_plan(ask, Verdict(), settings, Catalog(settings, known.context_window))


def _names(plan: Plan) -> list[str]:
    return [str(target) for target in plan.candidates]


_LARGE = ["up/large", "groq/llama-3.3-70b-versatile"]


@pytest.mark.parametrize(
    ("model", "names", "role"),
    [
        (None, _LARGE, "large"),
        ("", _LARGE, "large"),
        ("auto", _LARGE, "large"),
        ("AUTO", _LARGE, "large"),
        ("large", _LARGE, "large"),
        ("Large", _LARGE, "large"),
        ("judge", _LARGE, "judge"),
        ("up/any/model:1", ["up/any/model:1"], None),
        ("GROQ/x", ["groq/x"], None),
        ("llama-3.3-70b-versatile", ["groq/llama-3.3-70b-versatile"], None),
        ("llama-3.1-8b-instant", ["groq/llama-3.1-8b-instant"], None),
        ("nobody-knows-me", _LARGE, "large"),
        ("who/knows", _LARGE, "large"),
        ("up/", _LARGE, "large"),
        ("/", _LARGE, "large"),
    ],
)
def test_what_a_model_name_stands_for(
    settings: Settings, model: str | None, names: list[str], role: str | None
) -> None:
    plan = _plan(settings, model)
    assert (_names(plan), plan.role) == (names, role)
    assert plan.why


@pytest.mark.parametrize(
    "settings", ['MODEL_ALIASES={"a": "large", "b": "groq/x,up/y", "auto": "groq/z"}\n'], indirect=True
)
def test_aliases(settings: Settings) -> None:
    assert (_names(_plan(settings, "a")), _plan(settings, "a").role) == (_LARGE, "large")
    assert _names(_plan(settings, "b")) == ["groq/x", "up/y"]
    assert _names(_plan(settings, "auto")) == ["groq/z"]
    assert "alias" in _plan(settings, "b").why[0]


@pytest.mark.parametrize("settings", ["UNKNOWN_MODEL=error\n"], indirect=True)
def test_an_unknown_model_may_be_an_error(settings: Settings) -> None:
    with pytest.raises(CallerError) as caught:
        _plan(settings, "nobody-knows-me")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert _names(_plan(settings, "large")) == _LARGE


def test_openrouters_models_are_further_candidates(settings: Settings) -> None:
    plan = _plan(settings, "groq/a", models=["groq/b", "groq/a", "large"])
    assert _names(plan) == ["groq/a", "groq/b", *_LARGE]
    assert _names(_plan(settings, None, models=["groq/b"])) == ["groq/b"]


def test_a_backend_without_a_key_is_skipped_with_the_reason(settings: Settings) -> None:
    plan = _plan(settings, None, models=["openai/gpt-5.1", "up/x"])
    assert _names(plan) == ["up/x"]
    assert plan.skipped == ((Target("openai", "gpt-5.1"), "set OPENAI_API_KEY"),)
    with pytest.raises(SluiceError) as caught:
        _plan(settings, "openai/gpt-5.1")
    assert (caught.value.status, caught.value.code) == (503, "no_usable_backend")
    assert "OPENAI_API_KEY" in caught.value.message


@pytest.mark.parametrize(
    "settings",
    ["MODEL_MEDIUM=groq/m\nBACKENDS__UP__ENABLED=false\nGROQ_ENABLED=true\nMODEL_LARGE=up/a\n"],
    indirect=True,
)
def test_auto_goes_elsewhere_when_its_own_role_is_out_of_use(settings: Settings) -> None:
    plan = _plan(settings, "auto")
    assert _names(plan) == ["groq/m"]
    assert "medium does" in plan.why[1]


@pytest.mark.parametrize("settings", ["LOCAL_ONLY=true\n"], indirect=True)
def test_local_only_is_told(settings: Settings) -> None:
    with pytest.raises(PolicyError) as caught:
        _plan(settings, "up/x")
    assert (caught.value.status, caught.value.code) == (403, "local_only")


@pytest.mark.parametrize(
    ("body", "needed"),
    [
        ({}, set()),
        ({"n": 1}, set()),
        ({"n": 2}, {"n"}),
        ({"logprobs": True}, {"logprobs"}),
        ({"logit_bias": {"1": 1}}, {"logit_bias"}),
        ({"tools": [{}], "tool_choice": "auto"}, {"tools"}),
        ({"tools": [{}], "tool_choice": "required"}, {"tools", "tool_choice"}),
        ({"response_format": {"type": "json_schema"}}, {"schema"}),
        ({"response_format": {"type": "json_object"}}, set()),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]}, {"vision"}),
        (
            {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            {"vision", "image_url"},
        ),
        ({"messages": [{"content": [{"type": "input_audio"}]}]}, {"audio"}),
    ],
)
def test_needs(body: dict[str, Any], needed: set[str]) -> None:
    assert needs(body) == needed


def test_who_cannot_is_no_candidate(settings: Settings) -> None:
    plan = _plan(settings, "large", n=2)
    assert _names(plan) == ["up/large"]
    assert plan.skipped[0][1] == "cannot do n"
    with pytest.raises(CallerError) as caught:
        _plan(settings, "groq/x", logprobs=True)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", "logprobs")


@pytest.mark.parametrize("settings", ["MODEL_EMBEDDING=up/e\n"], indirect=True)
def test_embeddings_go_to_their_role(settings: Settings) -> None:
    assert _names(_plan(settings, "auto", "embeddings")) == ["up/e"]
    assert _names(_plan(settings, "text-embedding-3-small", "embeddings")) == ["up/e"]
    assert _names(_plan(settings, "up/other", "embeddings", n="x", messages=7)) == ["up/other"]


@pytest.mark.parametrize(
    ("name", "backends", "target"),
    [
        ("gpt-4o", ["openai", "openrouter"], "openai/gpt-4o"),
        ("GPT-4o", ["openai"], "openai/gpt-4o"),
        ("gpt-4o-2024-08-06", ["openai"], "openai/gpt-4o-2024-08-06"),
        ("llama-3.3-70b", ["groq"], "groq/llama-3.3-70b-versatile"),
        ("gpt-4o", [], None),
        ("gpt-4o", ["groq"], None),
        ("", ["openai", "groq"], None),
        ("no such model", ["openai", "anthropic", "gemini", "groq", "workers-ai", "openrouter"], None),
    ],
)
def test_whose_a_bare_id_is(name: str, backends: list[str], target: str | None) -> None:
    found = known.owner(name, tuple(backends))
    assert (str(found) if found else None) == target


def test_context_windows_are_known_where_the_table_has_them() -> None:
    assert (known.context_window(Target("openai", "gpt-4o")) or 0) >= 128_000
    assert known.context_window(Target("up", "x")) is None


_ASKED: tuple[dict[str, Any], ...] = (
    {"model": "auto"}, {"model": "auto", "messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
    {"model": "large"}, {"model": "up/x"}, {"models": ["up/x", "groq/y"]}, {"model": "up/x", "models": ["groq/y"]},
)  # fmt: skip


@pytest.mark.parametrize("settings", ["GROQ_ENABLED=false\n", "UNKNOWN_MODEL=error\n"], indirect=True)
def test_plans_made_one_after_another_are_those_made_anew(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(_BASE)
    other = load(tmp_path / "other")
    for verdict in (Verdict(), Verdict("code", 3), Verdict("chat", 9)):
        for body in (*_ASKED, *_ASKED):
            ask = Ask("chat", {"messages": [{"role": "user", "content": "x"}], **body}, Hints(), "t", 0.0, "r")
            plans = [make_plan(ask, verdict, settings, Catalog(settings, known.context_window)) for _ in range(2)]
            _plan(other, "groq/z")
            plans.append(make_plan(ask, verdict, settings, Catalog(settings, known.context_window)))
            assert plans[0] == plans[1] == plans[2]
