"""A streamed answer, and what saves it when its backend fails in the middle.

In order: (a) a target that is known to continue an assistant message is asked to; (b) the call is restarted, and what
the caller already has is skipped if the new answer begins with exactly that; (c) the error reaches the caller.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from app.backend.base import Event, apart
from app.backend.engine_host import ENGINE_LOST
from app.errors import BackendError, Reason
from app.route import known

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.backend.base import Take
    from app.call import Target
    from app.dispatch import Walk
    from app.hold import Hold, Opened
    from app.transcript import Transcript

    Judge = Callable[[Transcript], tuple[str, ...]]

_RESTARTS = {Reason.CUT, Reason.RESET, Reason.MALFORMED, Reason.SERVER_ERROR, Reason.OVERLOADED}
"""After these the same target may be asked again; one that went silent would only be silent again."""
_MOST_RESCUES = 3
"""A backend that breaks again and again is not hammered for one answer."""
_HOPELESS = {Reason.DEADLINE, Reason.TOO_LARGE, Reason.CONTENT_FILTER}


class StreamAnswer:
    """A committed stream: pull batches until an empty one, and close it whatever happens.

    Attributes:
        target: who answers now.
        said: what the caller has been given so far.
        replayed: whether it was all there before; never.
    """

    replayed = False

    def __init__(self, walk: Walk, opened: Opened, judge: Judge | None = None) -> None:
        self._walk = walk
        self._judge = judge
        self._opened = opened
        self._done = False
        self._take: Take | None = None
        self.said: Transcript = opened.script

    @property
    def target(self) -> Target:
        """Who answers now."""
        return self._opened.hold.lane.target

    async def batch(self) -> list[Event]:
        """Return the next events, at least one; none once the answer is whole.

        Raises:
            SluiceError: the answer broke and could not be saved; what came before it has been given out.
        """
        if self._opened.held:
            return self._opened.taken()
        if self._done:
            return []
        try:
            events = await self._opened.pull()
        except BackendError as error:
            return await self._saved(error) or await self.batch()
        if not events:
            self._finish()
        return events

    def pass_on(self, take: Take) -> None:
        """Offer plain text events that arrive while :meth:`batch` waits to ``take``; it waits on if they are taken."""
        self._take = take
        self._opened.pass_on(take)

    def _finish(self) -> None:
        self._done = True
        self._opened.stream.finish()
        self._opened.hold.settle("ok")
        self._walk.tried(self._opened.hold, "ok", self._opened.script.usage(self._walk.trace.prompt_estimate()))
        trace = self._walk.trace
        trace.stage("stream")
        if self._judge is not None:
            trace.faults, trace.polished = self._judge(self.said), "no"
            trace.weak = bool(trace.faults)
            trace.stage("check")

    def close(self) -> None:
        """Close everything at once; harmless when repeated. What was under way counts as abandoned."""
        if not self._done:
            self._done = True
            self._opened.close()
            usage = self._opened.script.usage(self._walk.trace.prompt_estimate())
            self._walk.tried(self._opened.hold, "abandoned", usage)

    # -- rescue --------------------------------------------------------------------------------------------------------

    async def _saved(self, error: BackendError) -> list[Event]:
        """Find another stream that goes on where this one broke, and return its first events."""
        broken = self._opened
        broken.stream.close()
        self._walk.lost(broken.hold, error, broken.script)
        self._done = True  # nothing is held until the rescue has succeeded
        if not self._hopeful(error):
            raise error
        if self._walk.ask.native is not None:
            self._walk.ask = replace(self._walk.ask, native=None)  # what goes on is a chat, whoever goes on with it
        again = [self.target] if error.reason in _RESTARTS else []
        # An engine that ended takes seconds to be back: others are sooner.
        walk = self._walk
        targets = [*walk.left, *again] if error.code == ENGINE_LOST else [*again, *walk.left]
        events = None
        if not broken.malformed:  # where an event was lost, only the whole answer told anew is sure to be exact
            events = await self._continued(targets)
        events = events or await self._restarted([*walk.left] or again)
        if events is None:
            raise error
        self._done = False
        return events

    def _hopeful(self, error: BackendError) -> bool:
        """Whether another target could still give the rest."""
        own_limit = error.reason is Reason.DEADLINE and self._walk.remaining_s() > 0  # the target's, not the call's
        hopeless = error.reason in _HOPELESS and not own_limit
        native = self._walk.ask.native
        if native is not None and native.needs:
            return False  # only the caller's own words say it all, and no stream can be gone on with by them
        return not hopeless and self.said.exact and len(self._walk.trace.rescued) < _MOST_RESCUES

    async def _continued(self, targets: list[Target]) -> list[Event] | None:
        """Ask targets that continue an assistant message to go on from what was said."""
        walk, text = self._walk, "".join(self.said.text)
        if not text or self.said.reasoning:
            return None
        for target in [each for each in targets if self._takes_prefill(each)]:
            opened = await self._open(target, _prefilled(walk.ask.body, text, self.said.contents))
            if opened is not None:
                return self._go_on(opened, opened.taken(), "continue")
        return None

    def _takes_prefill(self, target: Target) -> bool:
        told = self._walk.config(target).prefill
        takes = known.takes_prefill(target) if told is None else told
        return takes and not self._walk.lane(target).refuses_prefill

    async def _restarted(self, targets: list[Target]) -> list[Event] | None:
        """Ask for the whole answer anew, and skip what was said if it is said again exactly."""
        walk = self._walk
        for target in targets:
            opened = await self._open(target, walk.ask.body)
            if opened is None:
                continue
            rest = await self._skipped(opened)
            if rest is not None:
                return self._go_on(opened, rest, "restart")
        return None

    async def _open(self, target: Target, body: dict[str, Any]) -> Opened | None:
        """Begin a stream at a target; None where it fails. A refused prefill is remembered and never told."""
        walk = self._walk
        prefill = body is not walk.ask.body
        if not prefill and target in walk.left:
            walk.left.remove(target)
        for again in (True, False):
            hold: Hold | None = await walk.enter(walk.lane(target))
            if hold is None:
                return None
            try:
                return await walk.begin(hold, body)
            except BackendError as error:
                walk.lost(hold, error)
                self._learn(hold, error, prefill=prefill)
                if not again or error.reason is not Reason.RESET:
                    return None
            except BaseException:
                hold.settle("ignored")
                raise
        return None

    def _learn(self, hold: Hold, error: BackendError, *, prefill: bool) -> None:
        """Remember who takes no prefill; who failed otherwise is not asked again for this call."""
        target = hold.lane.target
        if prefill and error.reason is Reason.INVALID:
            hold.lane.refuses_prefill = True
        elif target in self._walk.left and error.reason is not Reason.RESET:
            self._walk.left.remove(target)

    async def _skipped(self, opened: Opened) -> list[Event] | None:
        """Pull a new answer past what was already said; None if it is another answer."""
        try:
            rest = opened.taken()
            while True:
                surplus = _surplus(self.said, opened.script)
                if surplus is None:
                    break
                if any(surplus) or opened.script.finished:
                    return _remainder(rest, *surplus)
                rest = await opened.pull()
        except BackendError as error:
            opened.stream.close()
            self._walk.lost(opened.hold, error, opened.script)
            return None
        except BaseException:
            opened.close()
            raise
        self._set_aside(opened)
        return None

    def _set_aside(self, opened: Opened) -> None:
        """Close a stream that answers well, only not the same."""
        opened.stream.close()
        opened.hold.settle("ok")
        self._walk.tried(opened.hold, "other_answer", opened.script.usage(self._walk.trace.prompt_estimate()))

    def _go_on(self, opened: Opened, events: list[Event], how: str) -> list[Event]:
        before = self.said
        self._opened = opened
        if self._take is not None:
            opened.pass_on(self._take)
        self._walk.trace.rescued.append(how)
        self.said = _joined(before, opened.script) if how == "continue" else opened.script
        opened.script = self.said
        return events


def _joined(before: Transcript, now: Transcript) -> Transcript:
    """Add what was said before the cut in front of a continuation's transcript."""
    now.text[:0] = before.text
    now.contents += before.contents
    now.first_ns = before.first_ns
    return now


def _prefilled(body: dict[str, Any], text: str, contents: int) -> dict[str, Any]:
    """Return the body with the answer so far as its last message, and its limit less what was already said."""
    changed = {**body, "messages": [*body["messages"], {"role": "assistant", "content": text}]}
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(name), int):
            changed[name] = max(1, body[name] - contents)
    return changed


def _surplus(said: Transcript, new: Transcript) -> tuple[str, str] | None:
    """Return what a new answer says beyond what was said, (reasoning, text); None once the two differ.

    Both are empty while the new answer is behind.
    """
    if not new.exact:
        return None
    old_reasoning, old_text = "".join(said.reasoning), "".join(said.text)
    reasoning, text = "".join(new.reasoning), "".join(new.text)
    more_reasoning, more_text = _beyond(old_reasoning, reasoning), _beyond(old_text, text)
    if more_reasoning is None or more_text is None:
        return None
    behind = len(reasoning) < len(old_reasoning)
    if (text and behind) or (old_text and more_reasoning):
        return None
    if new.finished and (behind or len(text) < len(old_text)):
        return None
    return more_reasoning, more_text


def _beyond(old: str, new: str) -> str | None:
    if new.startswith(old):
        return new[len(old) :]
    return "" if old.startswith(new) else None


def _remainder(events: list[Event], reasoning: str, text: str) -> list[Event]:
    """Return what of the newest events lies beyond what was said: the surplus first, then what brings no text."""
    rest = [kept for event in apart(events) if (kept := _without_text(event)) is not None]
    surplus = [("reasoning_content", reasoning), ("content", text)]
    return [*(_delta_event(events[-1].chunk, name, value) for name, value in surplus if value), *rest]


def _without_text(event: Event) -> Event | None:
    """Return an event less its text; None where nothing is left that the caller needs."""
    if not _brings_text(event.chunk):
        return event
    choices = event.chunk.get("choices") or ()
    if not event.chunk.get("usage") and not any(choice.get("finish_reason") for choice in choices):
        return None
    chunk = {**event.chunk, "choices": [{**choice, "delta": {}} for choice in choices]}
    return Event(b"data: " + orjson.dumps(chunk) + b"\n\n", chunk)


def _delta_event(model: dict[str, Any], name: str, value: str) -> Event:
    chunk = {**model, "choices": [{"index": 0, "delta": {name: value}, "finish_reason": None}]}
    chunk.pop("usage", None)
    return Event(b"data: " + orjson.dumps(chunk) + b"\n\n", chunk)


def _brings_text(chunk: dict[str, Any]) -> bool:
    deltas = [choice.get("delta") or {} for choice in chunk.get("choices") or ()]
    return any(value for delta in deltas for name, value in delta.items() if name != "tool_calls")
