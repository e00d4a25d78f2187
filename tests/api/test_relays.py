"""Moderations, audio and images: passed on as they are, through breaker, slots, keys, metrics and record."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import openai
import pytest
from openai.types import ImagesResponse

from app.endpoints import RELAYS
from app.trace import Record
from tests.conftest import Running, Start
from tests.sdk import sdk
from tests.upstream import Upstream
from tests.upstream.relays import speech_of

_ROLES = "MODEL_MODERATION=up/mod\nMODEL_TRANSCRIPTION=up/hear\nMODEL_SPEECH=up/say\nMODEL_IMAGE=up/draw\n"
_WAV = ("a.wav", b"RIFF\x00\r\n--" * 100)


async def _noted(sluice: Running, up: Upstream) -> list[Record]:
    """Have every record noted."""
    records: list[Record] = []
    sluice.gateway.hooks.append(records.append)
    return records


async def test_moderations(up: Upstream, start: Start) -> None:
    async with start(_ROLES, up=up) as sluice, sdk(sluice) as ai:
        records = await _noted(sluice, up)
        one = await ai.moderations.create(input=["kind words", "violence"])
    assert [each.flagged for each in one.results] == [False, True]
    assert (up.log[0].model, up.log[0].path) == ("mod", "/v1/moderations")
    assert (records[0].endpoint, str(records[0].target), records[0].role) == ("moderations", "up/mod", "moderation")


async def test_transcription_and_translation_of_a_file(up: Upstream, start: Start) -> None:
    async with start(_ROLES, up=up) as sluice, sdk(sluice) as ai:
        heard = await ai.audio.transcriptions.create(model="whisper-1", file=_WAV, language="en")
        form = {"model": "up/other", "response_format": "text"}
        told = await sluice.client.post("/v1/audio/translations", data=form, files={"file": _WAV})
    assert heard.text == told.text == "I heard 900 bytes of a.wav."
    assert told.headers["content-type"] == "text/plain; charset=utf-8"
    assert [(each.model, each.path) for each in up.log] == [
        ("hear", "/v1/audio/transcriptions"),
        ("other", "/v1/audio/translations"),
    ]
    assert up.log[0].body["language"] == "en"


async def test_a_transcription_streams(up: Upstream, start: Start) -> None:
    async with start(_ROLES, up=up) as sluice, sdk(sluice) as ai:
        events = await ai.audio.transcriptions.create(model="up/hear", file=_WAV, stream=True)
        kinds = [each.type async for each in events]
    assert kinds == ["transcript.text.delta", "transcript.text.done"]


async def test_speech_is_every_byte(up: Upstream, start: Start) -> None:
    async with start(_ROLES, up=up) as sluice, sdk(sluice) as ai:
        records = await _noted(sluice, up)
        answer = await ai.audio.speech.create(model="up/say", voice="alloy", input="hello " * 50)
        assert answer.content == speech_of("hello " * 50)
        assert answer.response.headers["content-type"] == "audio/mpeg"
        assert answer.response.headers["x-sluice-target"] == "up/say"
    assert (records[0].outcome, [each.result for each in records[0].attempts]) == ("ok", ["ok"])


async def test_images_made_edited_and_varied(up: Upstream, start: Start) -> None:
    async with start(_ROLES, up=up) as sluice, sdk(sluice) as ai:
        made = await ai.images.generate(prompt="a sluice")
        edited = await ai.images.edit(image=("a.png", b"png"), prompt="wider")
        varied = await sluice.client.post("/v1/images/variations", files={"image": ("a.png", b"png")})
    for each in (made, edited, ImagesResponse(**varied.json())):
        assert each.data
        assert base64.b64decode(each.data[0].b64_json or "").startswith(b"\x89PNG")
    assert [each.path for each in up.log] == [f"/v1/images/{name}" for name in ("generations", "edits", "variations")]
    assert {each.model for each in up.log} == {"draw"}


@pytest.mark.parametrize("endpoint", RELAYS)
async def test_without_a_backend_it_is_404_and_says_what_to_set(sluice: Running, endpoint: str) -> None:
    relay = RELAYS[endpoint]
    files = {relay.required: ("a", b"x")} if relay.form and relay.required != "prompt" else None
    given: dict[str, Any] = {"prompt": "x", "input": "x"}
    if relay.form:
        answer = await sluice.client.post(f"/v1{relay.path}", data=given, files=files or {"image": ("a", b"x")})
    else:
        answer = await sluice.client.post(f"/v1{relay.path}", json=given)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "unsupported_endpoint")
    assert f"MODEL_{relay.role.upper()}" in error["message"]
    assert "OPENAI_API_KEY" in error["message"]


async def test_a_backend_that_has_it_not_is_not_asked(up: Upstream, start: Start) -> None:
    async with start("BACKENDS__UP__DIALECT=groq\n", up=up) as sluice:
        answer = await sluice.client.post("/v1/images/generations", json={"model": "up/x", "prompt": "x"})
        spoken = await sluice.client.post("/v1/audio/speech", json={"model": "up/x", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported_endpoint")
    assert spoken.content == speech_of("x")


async def test_what_is_missing_is_named(sluice: Running) -> None:
    for path, field in (("moderations", "input"), ("audio/speech", "input"), ("images/generations", "prompt")):
        answer = await sluice.client.post(f"/v1/{path}", json={"model": "up/x"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    answer = await sluice.client.post("/v1/audio/transcriptions", data={"model": "up/x"}, files={"other": b"x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    answer = await sluice.client.post("/v1/audio/transcriptions", json=[1])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    answer = await sluice.client.post("/v1/audio/transcriptions", content=b"x", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_content_type")


async def test_keys_are_asked_for(up: Upstream, start: Start) -> None:
    async with start(f"API_KEYS=secret\n{_ROLES}", up=up) as sluice:
        answer = await sluice.client.post("/v1/moderations", json={"input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_the_next_candidate_answers_where_one_fails(up: Upstream, start: Start) -> None:
    async with start("MODEL_SPEECH=up/a-503,up/b\nRETRIES=0\n", up=up) as sluice:
        answer = await sluice.client.post("/v1/audio/speech", json={"input": "hi"})
    assert answer.content == speech_of("hi")
    assert answer.headers["x-sluice-attempts"] == "up/a-503=overloaded;up/b=ok"


async def test_the_backends_error_is_told(sluice: Running) -> None:
    answer = await sluice.client.post("/v1/moderations", json={"model": "up/x-400filter", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")


@pytest.mark.parametrize("fault", ["cut:1", "cutrst:1", "stall:1"])
async def test_what_breaks_in_the_middle_is_never_taken_for_whole(up: Upstream, start: Start, fault: str) -> None:
    async with start("IDLE_TIMEOUT_S=0.2\n", up=up) as sluice:
        records = await _noted(sluice, up)
        with pytest.raises(httpx.RemoteProtocolError):
            await sluice.client.post("/v1/audio/speech", json={"model": f"up/x-{fault}", "input": "x" * 100})
        assert (records[0].outcome, records[0].attempts[0].result != "ok") == ("cut", True)


async def test_a_broken_stream_of_events_ends_with_an_error(sluice: Running) -> None:
    body = {"model": "up/x-cut:1", "input": "x", "stream_format": "sse"}
    answer = await sluice.client.post("/v1/audio/speech", json=body)
    assert answer.content.split(b"\n\n")[-2].startswith(b'data: {"error":{"message":')


async def test_a_caller_that_reads_slowly_is_sent_no_more_and_one_that_leaves_ends_it(
    sluice: Running, up: Upstream
) -> None:
    recorded = asyncio.Event()
    sluice.gateway.hooks.append(lambda _: recorded.set())
    body = {"model": "up/x-endless", "input": "x" * 100}
    async with sluice.client.stream("POST", "/v1/audio/speech", json=body) as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        await up.wait_for(lambda log: log[0].blocked)
        assert up.log[0].bytes < 32 * 1024 * 1024
    await up.wait_for(lambda log: log[0].ended == "client_closed")
    await asyncio.wait_for(recorded.wait(), 5)
    lane = next(iter(sluice.gateway.lanes))
    assert (lane.gate.in_use, lane.breaker.state) == (0, "closed")


async def test_the_first_bytes_have_a_limit(up: Upstream, start: Start) -> None:
    async with start("ANSWER_TIMEOUT_S=0.2\n", up=up) as sluice:
        answer = await sluice.client.post("/v1/audio/speech", json={"model": "up/x-slow:5", "input": "x"})
    assert (answer.status_code, up.log[0].number) == (504, 1)


async def test_a_sound_larger_than_an_answer_may_be_passes(up: Upstream, start: Start) -> None:
    async with start("MAX_ANSWER_MB=0.01\n", up=up) as sluice:
        body = {"model": "up/x", "input": "x" * 100}
        assert len((await sluice.client.post("/v1/audio/speech", json=body)).content) == 100_000
        refused = await sluice.client.post("/v1/moderations", json={"model": "up/x", "input": ["x"] * 50})
        assert refused.status_code == 502


async def test_metrics_name_the_endpoint(up: Upstream, start: Start) -> None:
    async with start(_ROLES, up=up) as sluice, sdk(sluice) as ai:
        await ai.moderations.create(input="x")
        text = (await sluice.client.get("/metrics")).text
    assert 'sluice_requests_total{endpoint="moderations",outcome="ok",role="moderation",target="up/mod"} 1.0' in text


async def test_local_only_says_so(up: Upstream, start: Start) -> None:
    async with start("LOCAL_ONLY=true\n", up=up) as sluice, sdk(sluice) as ai:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await ai.moderations.create(input="x")
    assert caught.value.code == "local_only"
