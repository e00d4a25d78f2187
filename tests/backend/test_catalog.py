from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backend.catalog import DIALECTS, adapt, schema_as_taken
from app.call import Target
from tests.conftest import Start
from tests.upstream import Upstream

_T = Target("b", "the-model")
_USER = {"role": "user", "content": "hi"}


def _adapted(dialect: str, **body: Any) -> dict[str, Any]:
    return adapt({"model": "auto", "messages": [_USER], **body}, _T, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_unknown_fields_pass_and_the_model_is_the_targets(dialect: str) -> None:
    strange = {"extra_body": {"google": {"a": 1}}, "x_new": [1, None], "metadata": {"k": "v"}}
    assert _adapted(dialect, **strange) == {"model": "the-model", "messages": [_USER], **strange}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_body_itself_is_never_changed(dialect: str) -> None:
    messages = [{"role": "developer", "content": "be nice", "name": "x"}, _USER]
    body = {"model": "auto", "stream": True, "max_tokens": 3, "n": 1, "models": ["b/c"], "messages": messages}
    copy = {**body, "messages": [dict(message) for message in messages]}
    adapt(body, _T, dialect)
    assert body == copy


def test_openrouters_fallback_list_is_not_passed_on() -> None:
    assert "models" not in _adapted("openrouter", models=["a/b"])


@pytest.mark.parametrize(
    ("dialect", "sent", "name"),
    [
        ("openai", "max_tokens", "max_completion_tokens"),
        ("openai", "max_completion_tokens", "max_completion_tokens"),
        ("ollama", "max_completion_tokens", "max_tokens"),
        ("compatible", "max_completion_tokens", "max_tokens"),
        ("gemini", "max_completion_tokens", "max_tokens"),
        ("groq", "max_completion_tokens", "max_completion_tokens"),
    ],
)
def test_the_limit_of_tokens_has_the_name_that_the_wire_knows(dialect: str, sent: str, name: str) -> None:
    found = _adapted(dialect, **{sent: 7})
    assert {key: value for key, value in found.items() if "tokens" in key} == {name: 7}


@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - {"openai"}))
def test_developer_becomes_system_where_it_is_unknown(dialect: str) -> None:
    assert _adapted(dialect, messages=[{"role": "developer", "content": "x"}])["messages"][0]["role"] == "system"


def test_developer_stays_with_openai() -> None:
    assert _adapted("openai", messages=[{"role": "developer", "content": "x"}])["messages"][0]["role"] == "developer"


def test_what_groq_answers_with_400_is_not_sent() -> None:
    found = _adapted(
        "groq", n=1, logprobs=False, top_logprobs=None, logit_bias={}, messages=[{**_USER, "name": "bob"}], user="u"
    )
    assert found == {"model": "the-model", "messages": [_USER], "user": "u"}


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": True}])
def test_usage_is_always_asked_for_in_streams(options: Any) -> None:
    assert _adapted("compatible", stream=True, stream_options=options)["stream_options"] == {"include_usage": True}
    assert _adapted("compatible", stream=True, stream_options={"x": 1})["stream_options"]["x"] == 1


def test_plain_calls_get_no_stream_options() -> None:
    assert "stream_options" not in _adapted("compatible", stream=False)
    assert "stream_options" not in _adapted("compatible")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@given(st.sampled_from(sorted(DIALECTS)), st.dictionaries(st.text(min_size=1), _JSON))
def test_fields_that_nobody_knows_survive(dialect: str, body: dict[str, Any]) -> None:
    named = {f"new_{name}": value for name, value in body.items()}
    found = _adapted(dialect, **named)
    assert {name: value for name, value in found.items() if name.startswith("new_")} == named


@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        ("groq", "GROQ_BASE_URL={url}\nGROQ_API_KEY=provider-key\n"),
        ("openai", "OPENAI_BASE_URL={url}\nOPENAI_API_KEY=provider-key\n"),
        ("openrouter", "OPENROUTER_BASE_URL={url}\nOPENROUTER_API_KEY=provider-key\n"),
        ("gemini", "GEMINI_BASE_URL={url}/\nGEMINI_API_KEY=provider-key\n"),
        ("workers-ai", "WORKERS_AI_BASE_URL={url}\nCLOUDFLARE_API_TOKEN=provider-key\n"),
        ("ollama", "OLLAMA_BASE_URL={url}\nOLLAMA_API_KEY=provider-key\n"),
        ("my-box", "BACKENDS__MY_BOX__BASE_URL={url}\nBACKENDS__MY_BOX__API_KEY=provider-key\n"),
    ],
)
async def test_each_backend_gets_its_own_key_and_names(up: Upstream, start: Start, backend: str, settings: str) -> None:
    async with start(settings.format(url=up.url)) as sluice:
        answer = await sluice.chat(
            f"{backend}/vendor/model:1",
            headers={"authorization": "Bearer client-key", "x-api-key": "client-key", "cookie": "a=client-key"},
            max_completion_tokens=9,
            n=1,
            messages=[{"role": "developer", "content": "x", "name": "n"}, _USER],
            reasoning_effort="low",
        )
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-sluice-target"] == f"{backend}/vendor/model:1"
    (sent,) = up.log
    assert sent.headers["authorization"] == "Bearer provider-key"
    assert "client-key" not in str(sent.headers)
    assert sent.path == "/v1/chat/completions"
    quirks = DIALECTS.get(backend, DIALECTS["compatible"])
    renamed = (quirks.rename or {}).get("max_completion_tokens", "max_completion_tokens")
    assert sent.body["model"] == "vendor/model:1"
    assert sent.body["reasoning_effort"] == "low"
    assert sent.body[renamed] == 9
    assert sent.body["messages"][0]["role"] == ("developer" if backend == "openai" else "system")
    assert ("name" in sent.body["messages"][0]) is (backend != "groq")
    assert ("n" in sent.body) is ("n" not in quirks.drop)


_FORM = {
    "type": "json_schema",
    "json_schema": {
        "name": "x",
        "schema": {
            "type": "object",
            "properties": {"title": {"type": "string", "maxLength": 9}, "maxLength": {"type": "integer"}},
            "$defs": {"title": {"type": "array", "uniqueItems": True, "minItems": 2}},
        },
    },
}


def _form_of(dialect: str, model: str = "m", *, refused: bool = False) -> Any:
    body = {"messages": [], "response_format": _FORM}
    return schema_as_taken(body, Target("b", model), dialect, refused=refused).get("response_format")


def test_a_tasks_schema_goes_as_far_as_a_wire_takes_one() -> None:
    assert _form_of("mlx") is _FORM
    schema = _form_of("openai")["json_schema"]["schema"]
    assert schema["properties"] == {"title": {"type": "string"}, "maxLength": {"type": "integer"}}
    assert schema["$defs"] == {"title": {"type": "array", "minItems": 2}}
    assert _form_of("groq", "llama-3.3-70b-versatile") == {"type": "json_object"}
    assert _form_of("groq", "openai/gpt-oss-120b")["type"] == "json_schema"
    assert _form_of("openai", refused=True) is None
    assert _form_of("mlx", refused=True) is None
    other = {"messages": [], "response_format": {"type": "json_object"}}
    assert schema_as_taken(other, Target("b", "m"), "groq", refused=False) is other
