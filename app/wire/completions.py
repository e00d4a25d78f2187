"""The older ``/v1/completions`` as a chat, and back: the prompt becomes the user's message.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from typing import Any

from app.wire.fields import Json, bad, hints_of, kept, missing, new_id
from app.wire.responses_items import text_of

MOST_PROMPTS = 128
"""Each is a call of its own; for more there are batches."""
_SAME = (
    *("model", "models", "stream", "stream_options", "max_tokens", "temperature", "top_p", "n", "stop", "seed"),
    *("presence_penalty", "frequency_penalty", "logit_bias", "user"),
)
_MOST_LOGPROBS = 20
_FINISHES = frozenset({"stop", "length", "content_filter"})


def prompts_of(body: Json) -> list[Any]:
    """Return the prompts, each a text or a list of token ids.

    Raises:
        CallerError: 400, it is something else.
    """
    told = body.get("prompt")
    if told is None:
        raise missing("prompt")
    if isinstance(told, str) or (isinstance(told, list) and told and all(type(each) is int for each in told)):
        return [told]
    if not isinstance(told, list) or not told or len(told) > MOST_PROMPTS:
        raise bad("prompt", f"must be a string, token ids, or an array of 1 to {MOST_PROMPTS} of them")
    for index, each in enumerate(told):
        tokens = isinstance(each, list) and each and all(type(token) is int for token in each)
        if not (isinstance(each, str) or tokens):
            raise bad(f"prompt[{index}]", "must be a string or token ids")
    return told


def to_chat(body: Json, prompt: Any) -> tuple[Json, frozenset[str]]:
    """Translate a request with one prompt; also return the abilities that only a target with this wire has.

    Raises:
        CallerError: 400, with the path of what is wrong.
    """
    logprobs = _logprobs(body)
    wants = {
        "suffix": bool(body.get("suffix")),
        "best_of": (body.get("best_of") or 1) != (body.get("n") or 1) and body.get("best_of") is not None,
        "token_prompt": not isinstance(prompt, str),
        "echo_logprobs": bool(body.get("echo")) and logprobs is not None,
    }
    chat = {**kept(body, _SAME), **hints_of(body)}
    if logprobs is not None:
        chat |= {"logprobs": True, "top_logprobs": logprobs}
    content = prompt if isinstance(prompt, str) else "".join(f" {token}" for token in prompt)
    chat["messages"] = [{"role": "user", "content": content}]
    return chat, frozenset(name for name, wanted in wants.items() if wanted)


def _logprobs(body: Json) -> int | None:
    told = body.get("logprobs")
    if told is None or told is False:
        return None
    if isinstance(told, bool) or not isinstance(told, int) or not 0 <= told <= _MOST_LOGPROBS:
        raise bad("logprobs", f"must be a whole number from 0 to {_MOST_LOGPROBS}")
    return told


def own_body(body: Json, prompt: Any, needs: frozenset[str]) -> Json:
    """Return the request for a target that has this wire; it echoes only what cannot be echoed here."""
    made = {name: value for name, value in body.items() if name not in {"models", "metadata"}}
    if "echo_logprobs" not in needs:
        made.pop("echo", None)
    return {**made, "prompt": prompt}


class Told:
    """One answer of this wire, from a chat's.

    Args:
        model: who answers.
        echoed: by prompt, what stands in front of its answers.
        choices: how many answers each prompt gets.
    """

    def __init__(self, model: str, echoed: list[str], choices: int) -> None:
        self._echoed = echoed
        self._choices = max(1, choices)
        self._head: Json = {"id": new_id("cmpl-"), "object": "text_completion", "created": 0, "model": model}
        self._offsets: dict[int, int] = {}
        self._begun: set[int] = set()

    def whole(self, completion: Json) -> Json:
        """Return a chat completion as a completion."""
        self._take_head(completion)
        choices = [self._choice(each, each.get("message") or {}) for each in completion["choices"]]
        found = {**self._head, "choices": choices}
        return found | ({"usage": completion["usage"]} if completion.get("usage") else {})

    def chunk(self, chunk: Json) -> Json | None:
        """Return a chat's chunk as one of this wire; None where it brings nothing."""
        self._take_head(chunk)
        told = [self._choice(each, each.get("delta") or {}) for each in chunk.get("choices") or ()]
        choices = [each for each in told if each["text"] or each["finish_reason"]]
        return {**self._head, "choices": choices} if choices else None

    def usage(self, told: Json) -> Json:
        """Return the last chunk, where the caller wants one."""
        return {**self._head, "choices": [], "usage": told}

    def _take_head(self, told: Json) -> None:
        self._head["created"] = self._head["created"] or told.get("created") or 0
        if told.get("model") and not self._begun:
            self._head["model"] = told["model"]

    def _choice(self, choice: Json, said: Json) -> Json:
        index = choice.get("index") or 0
        text = text_of(said.get("content"))
        before = "" if index in self._begun else self._echo(index)
        self._begun.add(index)
        self._offsets[index] = self._offsets.get(index, 0) + len(before)
        finish = choice.get("finish_reason")
        return {
            "index": index,
            "text": before + text,
            "logprobs": self._probable(index, choice.get("logprobs")),
            "finish_reason": finish if finish is None or finish in _FINISHES else "stop",
        }

    def _echo(self, index: int) -> str:
        place = index // self._choices
        return self._echoed[place] if place < len(self._echoed) else ""

    def _probable(self, index: int, logprobs: Json | None) -> Json | None:
        entries = (logprobs or {}).get("content")
        if not entries:
            return None
        offsets = []
        for entry in entries:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(entry["token"])
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [
                {top["token"]: top["logprob"] for top in entry.get("top_logprobs") or ()} for entry in entries
            ],
            "text_offset": offsets,
        }


def completion_of(told: Json) -> Json:
    """Return a completion as a chat completion."""
    choices = [
        {
            "index": choice.get("index") or 0,
            "message": {"role": "assistant", "content": choice.get("text") or "", "refusal": None},
            "logprobs": _chat_logprobs(choice.get("logprobs")),
            "finish_reason": choice.get("finish_reason"),
        }
        for choice in told.get("choices") or ()
    ]
    return {**told, "object": "chat.completion", "choices": choices}


def chat_chunk(told: Json) -> Json:
    """Return a chunk of a completion as one of a chat."""
    choices = [
        {
            "index": choice.get("index") or 0,
            "delta": {"content": choice.get("text") or ""},
            "logprobs": _chat_logprobs(choice.get("logprobs")),
            "finish_reason": choice.get("finish_reason"),
        }
        for choice in told.get("choices") or ()
    ]
    return {**told, "object": "chat.completion.chunk", "choices": choices}


def _chat_logprobs(told: Json | None) -> Json | None:
    """Return log probabilities as a chat's; a first token that has none is given 0."""
    if not told or not told.get("tokens"):
        return None
    tops = told.get("top_logprobs") or [None] * len(told["tokens"])
    content = [
        {
            "token": token,
            "logprob": logprob or 0.0,
            "bytes": None,
            "top_logprobs": [{"token": each, "logprob": p, "bytes": None} for each, p in (top or {}).items()],
        }
        for token, logprob, top in zip(told["tokens"], told["token_logprobs"], tops, strict=False)
    ]
    return {"content": content, "refusal": None}
