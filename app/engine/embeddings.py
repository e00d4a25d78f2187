"""``/v1/embeddings``: for models made for it, never from a chat model's hidden states unless configured so."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from app.engine import adapter
from app.engine.errors import invalid, unsupported
from app.errors import CallerError

if TYPE_CHECKING:
    from app.engine.model import Model
    from app.engine.models import Keeper
    from app.engine.runner import Runner
    from app.engine.settings import EngineSettings
    from app.engine.thread import MlxThread

_KNOWN = {"model", "input", "encoding_format", "user", "dimensions"}
_BATCH_TOKENS = 8192  # padded tokens embedded in one piece of work, between two decode steps
_MAX_INPUTS = 2048  # OpenAI's limit


async def embeddings(
    keeper: Keeper, thread: MlxThread, settings: EngineSettings, model: Model, body: dict[str, Any]
) -> bytes:
    """Return the body of an embeddings response.

    Raises:
        CallerError: 400, the input is wrong or the model is not made for embeddings.
    """
    inputs, as_base64 = _checked(body)
    async with keeper.lease(model) as runner:
        _must_embed(runner, settings)
        rows = [_tokens(runner, text, i) for i, text in enumerate(inputs)]
        vectors: list[list[float]] = []
        for group in _groups(rows):
            vectors += await thread.call(partial(adapter.embed, runner.loaded, group, runner.loaded.folder.pooling))
    data = [{"object": "embedding", "index": i, "embedding": _written(v, as_base64)} for i, v in enumerate(vectors)]
    total = sum(map(len, rows))
    usage = {"prompt_tokens": total, "total_tokens": total}
    return orjson.dumps({"object": "list", "data": data, "model": model.name, "usage": usage})


def _checked(body: dict[str, Any]) -> tuple[list[Any], bool]:
    for key, value in body.items():
        if key not in _KNOWN and value is not None:
            raise unsupported(key, "this engine has no such parameter: leave it out")
    if body.get("dimensions") is not None:
        raise unsupported("dimensions", "vectors keep the model's own size here: leave it out")
    form = body.get("encoding_format") or "float"
    if form not in {"float", "base64"}:
        raise invalid("encoding_format", "must be float or base64")
    value = body.get("input")
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        value = [value]
    if not isinstance(value, list) or not value or len(value) > _MAX_INPUTS or not all(map(_is_input, value)):
        raise invalid("input", f"must be a string, token ids, or a list of at most {_MAX_INPUTS} of them, none empty")
    return value, form == "base64"


def _is_input(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)


def _must_embed(runner: Runner, settings: EngineSettings) -> None:
    name = runner.loaded.name
    if not runner.loaded.folder.embedding and name not in settings.embedding_models:
        raise CallerError(
            f"{name} is no embedding model: name one, or list it in MLX_EMBEDDING_MODELS if it was trained for that "
            "(the hidden states of a chat model are poor embeddings)",
            code="not_an_embedding_model",
            param="model",
        )


def _tokens(runner: Runner, text: Any, index: int) -> list[int]:
    loaded = runner.loaded
    tokens = list(text) if isinstance(text, list) else loaded.tokenizer.encode(text)
    if loaded.folder.pooling == "last" and isinstance(text, str) and tokens[-1:] != [loaded.tokenizer.eos_token_id]:
        tokens = [*tokens, loaded.tokenizer.eos_token_id]  # decoders are trained to sum up at the end token
    if max(tokens) >= loaded.vocabulary:
        raise invalid(f"input[{index}]", "holds token ids that the model does not have")
    if len(tokens) > loaded.folder.context:
        raise CallerError(
            f"This model's maximum context length is {loaded.folder.context} tokens; input[{index}] has {len(tokens)}.",
            code="context_length_exceeded",
            param="input",
        )
    return tokens


def _groups(rows: list[list[int]]) -> list[list[list[int]]]:
    """Return the rows in order, in groups that take a bounded time each once padded."""
    groups: list[list[list[int]]] = [[]]
    longest = 0
    for row in rows:
        longest = max(longest, len(row))
        if groups[-1] and longest * (len(groups[-1]) + 1) > _BATCH_TOKENS:
            groups.append([])
            longest = len(row)
        groups[-1].append(row)
    return groups


def _written(vector: list[float], as_base64: bool) -> Any:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode() if as_base64 else vector
