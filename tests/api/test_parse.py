from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.parse import ClientGoneError, decode, make_ask, read_body
from app.errors import CallerError
from app.settings import Settings

_SETTINGS = Settings(deadline_s=100)
_MB = 1024 * 1024


def _receive(*parts: bytes, gone: bool = False) -> Any:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False})
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(waiting)

    return receive


@pytest.mark.parametrize("parts", [(b"",), (b"abc",), (b"a", b"b", b"c"), (b"a" * _MB,)])
async def test_a_body_is_read_in_as_many_parts_as_it_comes(parts: tuple[bytes, ...]) -> None:
    assert await read_body(_receive(*parts), 1) == b"".join(parts)


@pytest.mark.parametrize("parts", [(b"a" * (_MB + 1),), (b"a" * _MB, b"b")])
async def test_one_byte_over_the_limit_is_413(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(CallerError) as caught:
        await read_body(_receive(*parts), 1)
    assert (caught.value.status, caught.value.fault) == (413, "caller_too_large")


async def test_who_leaves_in_the_middle_is_gone() -> None:
    with pytest.raises(ClientGoneError):
        await read_body(_receive(b"a", gone=True), 1)


async def _ask(headers: dict[bytes, bytes] | None = None, endpoint: str = "chat", **body: Any) -> Any:
    body = {"messages": [{"role": "user", "content": "x"}], **body}
    return make_ask(endpoint, body, headers or {}, "t", _SETTINGS, "r")


_IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": "http://x"}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [_IMAGE]}, "messages[0].content[0].image_url"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages[0].tool_calls[0]"),
        ({"model": 7}, "model"),
        ({"models": "x"}, "models"),
        ({"models": [7]}, "models"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": ["a", 1]}, "stop[1]"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"response_format": "json"}, "response_format"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"sluice_task": [1]}}, "metadata.sluice_task"),
        ({"metadata": {"sluice_complexity": 11}}, "x-sluice-complexity"),
        ({"metadata": {"sluice_complexity": 1e308 * 10}}, "x-sluice-complexity"),
        ({"user": 7}, "user"),
    ],
)
async def test_what_is_wrong_is_named_by_its_path(body: dict[str, Any], param: str) -> None:
    with pytest.raises(CallerError) as caught:
        await _ask(**body)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"input": None},
        {"input": ""},
        {"input": []},
        {"input": {}},
        {"input": [None]},
        {"input": "x", "encoding_format": "hex"},
        {"input": "x", "dimensions": "many"},
    ],
)
async def test_embeddings_are_checked(body: dict[str, Any]) -> None:
    with pytest.raises(CallerError) as caught:
        await _ask(endpoint="embeddings", **body)
    assert caught.value.status == 400


@pytest.mark.parametrize("given_input", ["x", ["x", "y"], [1, 2], [[1], [2, 3]]])
async def test_embeddings_take_strings_and_tokens(given_input: Any) -> None:
    assert (await _ask(endpoint="embeddings", input=given_input)).body["input"] == given_input


async def test_hints_of_headers_win_over_metadata() -> None:
    metadata = {"sluice_task": "a", "sluice_complexity": "3", "more": "kept"}
    told = (await _ask(metadata=metadata)).hints
    assert (told.task, told.complexity, told.no_cache, told.performance) == ("a", 3, False, False)
    headers = {b"x-sluice-task": b"b", b"x-sluice-complexity": b"9", b"x-sluice-session": b"s"}
    told = (
        await _ask({**headers, b"x-sluice-no-cache": b"1", b"x-sluice-performance": b"true"}, metadata=metadata)
    ).hints
    assert (told.task, told.complexity, told.session, told.no_cache, told.performance) == ("b", 9, "s", True, True)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [(b"30", 30), (b"0.5", 0.5), *((odd, 100) for odd in (b"", b"600", b"0", b"-5", b"nan", b"inf", b"x", b"\xff"))],
)
async def test_the_deadline_is_the_shorter_of_the_clients_and_ours(told: bytes, seconds: float) -> None:
    ask = await _ask({b"x-stainless-read-timeout": told})
    assert ask.deadline - asyncio.get_running_loop().time() == pytest.approx(seconds, abs=0.1)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "url"]), inner, max_size=3)
    ),
    max_leaves=8,
)
_FIELDS = [
    "model",
    "models",
    "messages",
    "stream",
    "stream_options",
    "n",
    "stop",
    "tools",
    "metadata",
    "input",
    "logit_bias",
    "user",
]


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON), st.sampled_from(["chat", "embeddings"]))
def test_any_body_is_an_ask_or_a_400(body: dict[str, Any], endpoint: str) -> None:
    async def ask() -> None:
        make_ask(endpoint, body, {}, "t", _SETTINGS, "r")

    try:
        asyncio.run(ask())
    except CallerError as error:
        assert error.status == 400  # noqa: PT017


@given(st.binary(max_size=50))
def test_any_bytes_are_an_object_or_a_400(raw: bytes) -> None:
    try:
        assert isinstance(decode(raw), dict)
    except CallerError as error:
        assert error.status == 400  # noqa: PT017


@pytest.mark.parametrize("levels", [1, 199])
def test_what_nests_within_reason_is_read(levels: int) -> None:
    raw = b'{"x":' + b"[" * levels + b"]" * levels + b"}"
    assert decode(raw)["x"] is not None


def test_many_brackets_are_not_deep() -> None:
    assert decode(b'{"x":[' + b"[]," * 10_000 + b'"[[["]}')


def test_a_nul_is_a_character_like_any_other_where_it_is_escaped() -> None:
    assert decode(b'{"x": "a\\u0000b"}') == {"x": "a\0b"}
    with pytest.raises(CallerError):
        decode(b'{"x": "a\0b"}')
    assert decode(b'{"x": "\\\\u0000"}') == {"x": "\\u0000"}
