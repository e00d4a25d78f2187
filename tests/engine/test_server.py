"""Bodies that are refused, clients that leave, keys, health, embeddings: what the HTTP side owes."""

from __future__ import annotations

import base64
import socket
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.engine.process import running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.process import Engine

MESSAGES = [{"role": "user", "content": "x"}]
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "messages[0].content[0]",
            "unsupported_parameter",
        ),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"top_k": 1.5}, "top_k", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"seed": "x"}, "seed", "invalid_value"),
        ({"stop": [1]}, "stop", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "invalid_value"),
        ({"logit_bias": {"5": 1000}}, "logit_bias.5", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"tools": [{"type": "web"}]}, "tools[0]", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
        ({"mirostat": 2}, "mirostat", "unsupported_parameter"),
        ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
        ({"model": ""}, "model", "invalid_value"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_a_400_that_names_it(
    engine: Engine, qwen: Path, body: dict[str, Any], param: str, code: str
) -> None:
    error = engine.error(CHAT, 400, **{"model": str(qwen), "messages": MESSAGES, **body})
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"


def test_top_k_beyond_the_vocabulary_is_all_of_it(engine: Engine, qwen: Path) -> None:
    assert engine.content(qwen, seed=4, max_tokens=8, top_k=999_999) == engine.content(qwen, seed=4, max_tokens=8)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [(b"{", "invalid_json", 400), (b"[1]", "invalid_json", 400), (b"\xff", "invalid_json", 400)],
)
def test_a_body_that_is_no_json_object(engine: Engine, content: bytes, kind: str, status: int) -> None:
    response = engine.http.post(CHAT, content=content)
    assert response.status_code == status
    assert response.json()["error"]["code"] == kind


def test_unknown_paths_and_methods(engine: Engine) -> None:
    assert engine.http.get("/nothing").status_code == 404
    assert engine.http.get(CHAT).status_code == 405


def test_a_prompt_over_the_context_is_refused_before_any_work(engine: Engine, folders: dict[str, Path]) -> None:
    model = str(folders["short"])
    long = [{"role": "user", "content": "word " * 3000}]
    error = engine.error(CHAT, 400, model=model, messages=long)
    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is 512 tokens" in error["message"]
    assert engine.error(CHAT, 400, model=model, messages=MESSAGES, max_tokens=600)["code"] == "context_length_exceeded"
    assert engine.get("/stats")["models"][model]["steps"] == 0


def test_a_template_that_refuses_a_role_is_a_400(engine: Engine, folders: dict[str, Path]) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "tool", "content": "y", "tool_call_id": "1"}]
    error = engine.error(CHAT, 400, model=str(folders["phi"]), messages=messages)
    assert "only system, user and assistant here" in error["message"]


def test_messages_are_normalised_for_the_template(engine: Engine, qwen: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "be"}, {"type": "text", "text": "brief"}]},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ]
    assert engine.chat(qwen, messages=messages, max_tokens=2)["usage"]["prompt_tokens"] > 40


def test_a_client_that_leaves_frees_its_place_within_a_step(engine: Engine, qwen: Path) -> None:
    body = {"model": str(qwen), "messages": MESSAGES, "max_tokens": 30_000, "stream": True, "logit_bias": no_end(qwen)}
    with engine.http.stream("POST", CHAT, json=body) as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith("data: "))
        assert engine.model(qwen)["running"] == 1
    await_idle(engine, qwen)


def test_a_plain_call_whose_client_leaves_is_cancelled_too(engine: Engine, qwen: Path) -> None:
    body = {"model": str(qwen), "messages": MESSAGES, "max_tokens": 30_000, "logit_bias": no_end(qwen)}
    with pytest.raises(httpx.ReadTimeout):
        engine.http.post(CHAT, json=body, timeout=0.5)
    await_idle(engine, qwen)


def no_end(model: Path) -> dict[str, int]:
    import json

    eos = json.loads((model / "config.json").read_text())["eos_token_id"]
    return {str(token): -100 for token in eos}


def await_idle(engine: Engine, model: Path) -> None:
    """Return once no request runs; every look is a round trip, so a thousand of them are a second at most."""
    for _ in range(1000):
        if engine.model(model)["running"] == 0 and engine.get("/stats")["models"][str(model)]["batch"] == 0:
            return
    pytest.fail("the request still runs")


def test_health_tells_each_state_and_models_are_listed(folders: dict[str, Path]) -> None:
    qwen, phi = str(folders["qwen"]), str(folders["phi"])
    with running("--models", f"{qwen},{phi}", "--preload", qwen, "--pin", qwen, "--ttl-s", "900") as engine:
        engine.chat(qwen, max_tokens=2)
        about = engine.get("/health")
        assert about["status"] == "ok"
        assert about["last_step_age_s"] < 60
        assert about["device"] in {"cpu", "gpu"}
        assert about["blas"] or sys.platform != "linux"  # the system's OpenBLAS or that of the extra
        ready, absent = about["models"][qwen], about["models"][phi]
        assert (ready["state"], ready["pinned"], ready["ttl_left_s"]) == ("ready", True, None)
        assert ready["bytes"] == (folders["qwen"] / "model.safetensors").stat().st_size - header(folders["qwen"])
        assert (absent["state"], absent["running"]) == ("not_loaded", 0)
        assert [model["id"] for model in engine.get("/v1/models")["data"]] == [qwen, phi]


def header(folder: Path) -> int:
    start = (folder / "model.safetensors").read_bytes()[:8]
    return 8 + int(struct.unpack("<Q", start)[0])


def test_off_loopback_a_key_is_required_and_asked_for(qwen: Path) -> None:
    import subprocess
    import sys

    from tests.engine.process import environment

    command = [sys.executable, "-m", "app.engine", "--host", "0.0.0.0"]
    refused = subprocess.run(command, env=environment(), capture_output=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert b"ENGINE_KEY" in refused.stderr
    with running("--models", str(qwen), ENGINE_KEY="sesame") as engine:
        assert engine.http.get("/v1/models").status_code == 401
        assert engine.http.get("/v1/models", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert engine.http.get("/v1/models", headers={"authorization": "Bearer sesame"}).status_code == 200
        assert engine.http.get("/health").status_code == 200


def test_a_taken_socket_is_exit_code_4_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.engine.process import environment

    path = tmp_path / "s"
    command = [sys.executable, "-m", "app.engine", "--uds", str(path)]
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        taken = subprocess.run(command, env=environment(), capture_output=True, timeout=60, check=False)
        assert taken.returncode == 4
        assert b"another engine" in taken.stderr
    assert path.is_socket()  # its owner has gone: a killed engine leaves the same
    with subprocess.Popen(
        [*command, "--exit-on-eof"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == f"listening on {path}\n".encode()
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://e", timeout=60) as client:
            assert client.get("/health").status_code == 200
        process.stdin.close()
        assert process.wait(20) == 0
    assert not path.exists()


def test_a_full_queue_is_503_with_retry_after(qwen: Path) -> None:
    with running("--models", str(qwen), "--queue", "2") as engine:
        engine.chat(qwen, max_tokens=1)
        gate = threading.Barrier(3)

        def hold(_: int) -> None:
            body = {
                "model": str(qwen),
                "messages": MESSAGES,
                "max_tokens": 30_000,
                "stream": True,
                "logit_bias": no_end(qwen),
            }
            with engine.http.stream("POST", CHAT, json=body) as response:
                lines = response.iter_lines()  # kept: when it goes, httpx closes the connection
                assert next(lines)
                gate.wait(30)
                gate.wait(30)

        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(hold, i) for i in range(2)]
            gate.wait(30)
            response = engine.post(CHAT, model=str(qwen), messages=MESSAGES)
            gate.wait(30)
            for one in held:
                one.result()
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["code"] == "queue_full"


def test_embeddings_are_unit_vectors_and_do_not_depend_on_the_batch(engine: Engine, folders: dict[str, Path]) -> None:
    model = str(folders["embed"])
    texts = ["one", "another and longer text " * 30, "three"]
    body = engine.post("/v1/embeddings", model=model, input=texts).json()
    vectors = [row["embedding"] for row in body["data"]]
    assert [row["index"] for row in body["data"]] == [0, 1, 2]
    assert all(abs(sum(x * x for x in vector) - 1) < 1e-4 for vector in vectors)
    alone = engine.post("/v1/embeddings", model=model, input="one", encoding_format="base64").json()["data"][0]
    decoded = struct.unpack(f"<{len(vectors[0])}f", base64.b64decode(alone["embedding"]))
    assert decoded == pytest.approx(vectors[0], abs=1e-5)
    assert vectors[0] != pytest.approx(vectors[2], abs=1e-3)


def test_a_chat_model_never_embeds_and_an_embedder_never_chats(engine: Engine, folders: dict[str, Path]) -> None:
    error = engine.error("/v1/embeddings", 400, model=str(folders["qwen"]), input="x")
    assert error["code"] == "not_an_embedding_model"
    assert "MLX_EMBEDDING_MODELS" in error["message"]
    error = engine.error(CHAT, 400, model=str(folders["embed"]), messages=MESSAGES)
    assert error["code"] == "not_a_chat_model"
    assert engine.error("/v1/embeddings", 400, model=str(folders["embed"]), input=[])["param"] == "input"
    too_much = engine.error("/v1/embeddings", 400, model=str(folders["embed"]), input="x", dimensions=8)
    assert too_much["code"] == "unsupported_parameter"
