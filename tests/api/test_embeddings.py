"""Embeddings in the form that the caller asked for, whatever the backend gives."""

from __future__ import annotations

import base64
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.embeddings import finished
from app.errors import BackendError
from tests.conftest import Running, Start
from tests.sdk import sdk
from tests.upstream import Upstream
from tests.upstream.answers import vector

_ROLE = "MODEL_EMBEDDING=up/embedding\n"
_floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=50)


def _answer(embedding: Any, **more: Any) -> dict[str, Any]:
    row = {"object": "embedding", "index": 0, "embedding": embedding}
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "data": [row], "model": "m", "usage": usage} | more


@given(numbers=_floats)
def test_there_and_back_is_the_same(numbers: list[float]) -> None:
    coded = finished(_answer(numbers), "m", "base64")
    assert coded["data"][0]["embedding"] == base64.b64encode(np.asarray(numbers, "<f4").tobytes()).decode()
    assert finished(coded, "m", None)["data"][0]["embedding"] == numbers


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_what_needs_no_change_is_the_same_object(form: str | None) -> None:
    answer = _answer("AACAPw==" if form == "base64" else [1.0])
    assert finished(answer, "m", form) is answer


def test_missing_keys_are_filled_in() -> None:
    done = finished({"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]}, "m", "float")
    assert [row["index"] for row in done["data"]] == [0, 1]
    assert (done["object"], done["model"]) == ("list", "m")
    assert done["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("bad", [None, 3, {}, "not base64!", "AAA="])
def test_what_is_no_vector_is_an_error_of_the_backend(bad: Any) -> None:
    with pytest.raises(BackendError):
        finished(_answer(bad), "m", "float")


@pytest.mark.parametrize("bad", [["x"], [None], [1e300]])
def test_numbers_that_are_none_are_an_error_of_the_backend(bad: Any) -> None:
    with pytest.raises(BackendError):
        finished(_answer(bad), "m", "base64")


@pytest.mark.parametrize("model", ["embedding", "embedding-floats", "embedding-coded"])
@pytest.mark.parametrize("form", ["base64", "float", None])
async def test_the_form_is_the_callers(sluice: Running, up: Upstream, model: str, form: str | None) -> None:
    body = {"model": f"up/{model}", "input": ["red fox", "blue"]} | ({"encoding_format": form} if form else {})
    answer = await sluice.client.post("/v1/embeddings", json=body)
    got = answer.json()["data"][1]["embedding"]
    numbers = struct.unpack("<16f", base64.b64decode(got)) if form == "base64" else got
    assert list(numbers) == pytest.approx(vector("blue", 16))


@pytest.mark.parametrize(
    "given", ["a b", ["a", "b c"], [1, 2, 3], [[1, 2], [3]], ["x"] * 2048], ids=["text", "texts", "ids", "rows", "most"]
)
async def test_every_kind_of_input_by_the_role(up: Upstream, start: Start, given: Any) -> None:
    async with start(_ROLE, up=up) as sluice, sdk(sluice) as ai:
        found = await ai.embeddings.create(model="text-embedding-3-small", input=given, dimensions=4)
    assert up.log[0].body["input"] == given
    rows = len(given) if isinstance(given, list) and not isinstance(given[0], int) else 1
    assert [len(row.embedding) for row in found.data] == [4] * rows


@pytest.mark.parametrize(
    "given", ["", [], [""], [[]], [1, "a"], ["a", 1], [[1], "a"], [["a"]], [True], [-1], 7, {}, None, ["x"] * 2049]
)
async def test_other_inputs_are_refused_by_name(sluice: Running, up: Upstream, given: Any) -> None:
    answer = await sluice.client.post("/v1/embeddings", json={"model": "up/e", "input": given})
    assert (answer.status_code, answer.json()["error"]["param"], up.log) == (400, "input", [])


@pytest.mark.parametrize("dimensions", [0, -1, True, "4", 1.5])
async def test_dimensions_are_a_whole_number(sluice: Running, dimensions: Any) -> None:
    answer = await sluice.client.post("/v1/embeddings", json={"model": "up/e", "input": "x", "dimensions": dimensions})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "dimensions")


async def test_a_backend_that_knows_no_base64_is_asked_for_numbers(up: Upstream, start: Start) -> None:
    async with start(f"BACKENDS__UP__DIALECT=gemini\n{_ROLE}", up=up) as sluice, sdk(sluice) as ai:
        found = await ai.embeddings.create(model="embedding", input="red fox")
    assert up.log[0].body["encoding_format"] == "float"
    assert found.data[0].embedding == pytest.approx(vector("red fox", 16))


async def test_token_ids_go_to_who_takes_them_or_are_refused(up: Upstream, start: Start) -> None:
    chain = "MODEL_EMBEDDING=other/e,up/embedding\n"
    other = f"BACKENDS__OTHER__BASE_URL={up.url}\nBACKENDS__OTHER__DIALECT=gemini\n"
    async with start(other + chain, up=up) as sluice:
        by_role = await sluice.client.post("/v1/embeddings", json={"input": [[1, 2]]})
        refused = await sluice.client.post("/v1/embeddings", json={"model": "other/e", "input": [1, 2]})
    assert by_role.headers["x-sluice-target"] == "up/embedding"
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")


async def test_a_backend_without_embeddings_says_what_to_set(up: Upstream, start: Start) -> None:
    async with start("BACKENDS__UP__DIALECT=groq\n", up=up) as sluice:
        answer = await sluice.client.post("/v1/embeddings", json={"model": "up/e", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported_endpoint")
    assert "MODEL_EMBEDDING" in answer.json()["error"]["message"]


async def test_an_answer_that_is_no_vector_is_told_as_the_backends(sluice: Running, up: Upstream) -> None:
    answer = await sluice.client.post("/v1/embeddings", json={"model": "up/e-badjson", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "server_error")
