"""The events of a response, from a chat's chunks. A state machine without I/O.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.wire.fields import Json, new_id, reasoning_of
from app.wire.responses_answer import ended, own_fields
from app.wire.responses_items import (
    call_item,
    message_item,
    probable,
    reasoning_item,
    refusal_part,
    text_part,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.errors import SluiceError


_PARTS = {
    "output_text": "text",
    "refusal": "refusal",
    "reasoning_text": "reasoning",
    "summary_text": "reasoning",
}
"""How parts are called here."""


@dataclass(slots=True)
class _Open:
    """An item under way: what it is, where it stands, and what of it has been told."""

    kind: str
    index: int
    item_id: str
    texts: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)
    blocks: list[Json] = field(default_factory=list)
    call: Json = field(default_factory=dict)
    parts: list[Json] = field(default_factory=list)
    part: str = ""

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def follow(self, kind: str, event: Json) -> None:
        """Note what a backend's own event tells of this item."""
        if kind.endswith((".content_part.added", "_summary_part.added")):
            self.part, self.texts = _PARTS.get(event["part"].get("type"), ""), []
        elif kind.endswith((".content_part.done", "_summary_part.done")):
            self.parts.append(event["part"])
            self.part = ""
        elif kind.endswith(("text.delta", "refusal.delta")):
            self.texts.append(event["delta"])

    def place(self, name: str = "content_index") -> Json:
        """Return where the open part stands."""
        return {"item_id": self.item_id, "output_index": self.index, name: len(self.parts)}


class ResponseEvents:
    """Turns chunks into events, each with its number.

    Args:
        base: what ``template`` returned for the request.
        model: who answers.
        summary: whether reasoning is told as a summary.

    Attributes:
        response: the whole response, once it has ended.
    """

    def __init__(self, base: Json, model: str, *, summary: bool) -> None:
        self.response: Json = {}
        self._base = {**base, "model": model}
        self._summary = summary
        self._begun = False
        self._number = 0
        self._output: dict[int, Json] = {}
        self._places = 0
        self._said: _Open | None = None
        self._calls: dict[int, _Open] = {}
        self._finish: str | None = None
        self._usage: Json | None = None
        self._last: Json | None = None

    def take(self, chunk: Json) -> list[Json]:
        """Return the events that a chunk is."""
        return [self._numbered(event) for event in self._taken(chunk)]

    def end(self, usage: Json | None, more: Json | None = None) -> list[Json]:
        """Return the events that end the response.

        Args:
            usage: a chat's usage, for where no chunk told it.
            more: further fields of the response.
        """
        return [self._numbered(event) for event in self._ended(usage, more or {})]

    def fail(self, error: SluiceError) -> list[Json]:
        """Return the events that tell an error; the response has what was said so far."""
        return [self._numbered(event) for event in self._failed(error)]

    def relay(self, event: Json) -> list[Json]:
        """Return an event of a backend that has this wire, as it came but for its number; its end is held back."""
        kind: str = event.get("type") or ""
        if isinstance(event.get("response"), dict):
            event = {**event, "response": {**event["response"], **own_fields(self._base)}}
        if kind == "response.created":
            self._begun = True
            self._base = {**event["response"], "output": []}
        elif kind in {"response.completed", "response.incomplete"}:
            self._last = event
            return []
        elif "output_index" in event:
            self._follow(kind, event)
        return [self._numbered(event)]

    def _follow(self, kind: str, event: Json) -> None:
        """Keep up with items that are relayed, so that another target could go on with them."""
        index = event["output_index"]
        self._places = max(self._places, index + 1)
        if kind == "response.output_item.done":
            self._output[index], self._said = event["item"], None
        elif kind == "response.output_item.added":
            known = event["item"].get("type") in {"message", "reasoning"}
            self._said = _Open(event["item"]["type"], index, event["item"].get("id") or "") if known else None
        elif self._said is not None:
            self._said.follow(kind, event)

    def _so_far(self) -> Json:
        return {**self._base, "output": [self._output[index] for index in sorted(self._output)]}

    def _numbered(self, event: Json) -> Json:
        event["sequence_number"] = self._number
        self._number += 1
        return event

    # -- the order of things -------------------------------------------------------------------------------------------

    def _begin(self) -> Iterator[Json]:
        if not self._begun:
            self._begun = True
            yield {"type": "response.created", "response": self._so_far()}
            yield {"type": "response.in_progress", "response": self._so_far()}

    def _taken(self, chunk: Json) -> Iterator[Json]:
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue  # a response is one answer
            yield from self._begin()
            yield from self._delta(choice.get("delta") or {}, choice.get("logprobs"))
            self._finish = choice.get("finish_reason") or self._finish

    def _delta(self, delta: Json, logprobs: Json | None) -> Iterator[Json]:
        if (thought := reasoning_of(delta)) or delta.get("thinking_blocks"):
            yield from self._reason(thought, delta.get("thinking_blocks") or [])
        if isinstance(delta.get("content"), str) and delta["content"]:
            yield from self._say("text", delta["content"], probable(logprobs))
        if isinstance(delta.get("refusal"), str) and delta["refusal"]:
            yield from self._say("refusal", delta["refusal"], [])
        for call in delta.get("tool_calls") or ():
            yield from self._call(call)

    def _ended(self, usage: Json | None, more: Json) -> Iterator[Json]:
        if self._last is not None:
            self.response = self._last["response"]
            yield {**self._last, "response": {**self.response, **more}}
            return
        yield from self._begin()
        if not self._places:
            yield from self._open("message")
        yield from self._close_all("incomplete" if self._finish == "length" else "completed")
        self.response = ended(self._so_far(), self._finish, self._usage or usage)
        yield {"type": f"response.{self.response['status']}", "response": {**self.response, **more}}

    def _failed(self, error: SluiceError) -> Iterator[Json]:
        yield from self._begin()
        yield from self._close_all("incomplete")
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"  # noqa: PLR2004 - of a closed set
        response = {**self._so_far(), "status": "failed", "error": {"code": code, "message": error.message}}
        yield {"type": "response.failed", "response": response}
        told = error.body()["error"]
        # OpenAI's schema has the fields on top; its servers, and the clients that raise, have them under ``error``.
        yield {"type": "error", **{name: told[name] for name in ("code", "message", "param")}, "error": told}

    # -- items ---------------------------------------------------------------------------------------------------------

    def _open(self, kind: str) -> Iterator[Json]:
        """Close what is under way, and begin another message or reasoning."""
        yield from self._close_said("completed")
        prefix = "rs_" if kind == "reasoning" else "msg_"
        self._said = said = _Open(kind, self._places, new_id(prefix))
        self._places += 1
        yield self._added(said.index, self._item(said, "in_progress"))

    @staticmethod
    def _added(index: int, item: Json) -> Json:
        return {"type": "response.output_item.added", "output_index": index, "item": item}

    def _item(self, said: _Open, status: str) -> Json:
        if said.kind == "reasoning":
            return reasoning_item(said.text, said.blocks, summary=self._summary, item_id=said.item_id)
        return message_item(list(said.parts), status, said.item_id)

    def _close_said(self, status: str) -> Iterator[Json]:
        said, self._said = self._said, None
        if said is None:
            return
        yield from self._close_part(said)
        yield self._done(said.index, self._item(said, status))

    def _done(self, index: int, item: Json) -> Json:
        self._output[index] = item
        return {"type": "response.output_item.done", "output_index": index, "item": item}

    def _close_all(self, status: str) -> Iterator[Json]:
        yield from self._close_said(status)
        for call in self._calls.values():
            arguments = call.text
            place = {"item_id": call.item_id, "output_index": call.index, "name": call.call["name"]}
            yield {"type": "response.function_call_arguments.done", **place, "arguments": arguments}
            yield self._done(call.index, {**call.call, "arguments": arguments, "status": status})
        self._calls.clear()

    # -- reasoning -----------------------------------------------------------------------------------------------------

    def _reason(self, text: str, blocks: list[Json]) -> Iterator[Json]:
        if self._said is None or self._said.kind != "reasoning":
            yield from self._open("reasoning")
        said: Any = self._said
        said.blocks += blocks
        if not text:
            return
        if not said.part:
            said.part = "reasoning"
            yield {"type": f"{self._parts}.added", **said.place(self._reason_index), "part": self._thought("")}
        said.texts.append(text)
        yield {"type": f"{self._reasons}.delta", **said.place(self._reason_index), "delta": text}

    @property
    def _reasons(self) -> str:
        return "response.reasoning_summary_text" if self._summary else "response.reasoning_text"

    @property
    def _parts(self) -> str:
        return "response.reasoning_summary_part" if self._summary else "response.content_part"

    def _thought(self, text: str) -> Json:
        return {"type": "summary_text" if self._summary else "reasoning_text", "text": text}

    @property
    def _reason_index(self) -> str:
        return "summary_index" if self._summary else "content_index"

    def _close_reasoning(self, said: _Open) -> Iterator[Json]:
        place = said.place(self._reason_index)
        yield {"type": f"{self._reasons}.done", **place, "text": said.text}
        yield {"type": f"{self._parts}.done", **place, "part": self._thought(said.text)}

    # -- messages ------------------------------------------------------------------------------------------------------

    def _say(self, part: str, text: str, logprobs: list[Json]) -> Iterator[Json]:
        if self._said is None or self._said.kind != "message":
            yield from self._open("message")
        said: Any = self._said
        if said.part != part:
            yield from self._close_part(said)
            said.part = part
            empty = text_part("", []) if part == "text" else refusal_part("")
            yield {"type": "response.content_part.added", **said.place(), "part": empty}
        said.texts.append(text)
        said.logprobs += logprobs
        if part == "text":
            yield {"type": "response.output_text.delta", **said.place(), "delta": text, "logprobs": logprobs}
        else:
            yield {"type": "response.refusal.delta", **said.place(), "delta": text}

    def _close_part(self, said: _Open) -> Iterator[Json]:
        if said.part == "reasoning":
            yield from self._close_reasoning(said)
        elif said.part:
            yield from self._close_said_part(said)

    @staticmethod
    def _close_said_part(said: _Open) -> Iterator[Json]:
        place, text = said.place(), said.text
        if said.part == "text":
            part = text_part(text, said.logprobs)
            yield {"type": "response.output_text.done", **place, "text": text, "logprobs": said.logprobs}
        else:
            part = refusal_part(text)
            yield {"type": "response.refusal.done", **place, "refusal": text}
        yield {"type": "response.content_part.done", **place, "part": part}
        said.parts.append(part)
        said.part, said.texts, said.logprobs = "", [], []

    # -- tool calls ----------------------------------------------------------------------------------------------------

    def _call(self, told: Json) -> Iterator[Json]:
        """Go on with a call; calls stay open to the end, for backends that tell several at once."""
        number = told.get("index") or 0
        call = self._calls.get(number)
        function = told.get("function") or {}
        if call is None:
            yield from self._close_said("completed")
            item = call_item({**told, "function": {**function, "arguments": ""}}, "in_progress")
            call = self._calls[number] = _Open("call", self._places, item["id"], call=item)
            self._places += 1
            yield self._added(call.index, item)
        if function.get("arguments"):
            call.texts.append(function["arguments"])
            place = {"item_id": call.item_id, "output_index": call.index}
            yield {"type": "response.function_call_arguments.delta", **place, "delta": function["arguments"]}
