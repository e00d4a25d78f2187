"""From a checked request to jobs: render, tokenise, compile the grammar, check the context; no work is queued yet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.engine import chat, grammar
from app.engine.jobs import Channel, Job
from app.errors import CallerError

if TYPE_CHECKING:
    from app.engine.params import Wanted
    from app.engine.runner import Runner
    from app.engine.settings import EngineSettings

_INLINE_CHARS = 4096  # a shorter conversation is rendered faster than a thread is woken


@dataclass(slots=True)
class Prepared:
    """The jobs of a request, sharing one channel, and how the answers' text is to be split."""

    jobs: list[Job]
    marks: chat.Marks
    parse: Any
    state: str

    @property
    def channel(self) -> Channel:
        """Where the answers arrive."""
        return self.jobs[0].channel

    @property
    def choices(self) -> int:
        """Answers in all."""
        return sum(job.choices for job in self.jobs)

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens in all."""
        return sum(len(job.prompt) for job in self.jobs)

    def splitter(self) -> chat.Splitter:
        """Return a fresh splitter for one choice."""
        return chat.Splitter(self.marks, self.parse, self.state)


async def prepare(runner: Runner, wanted: Wanted, settings: EngineSettings) -> Prepared:
    """Return a request's jobs.

    Raises:
        CallerError: 400, the prompt is too long, the template refuses it, or the schema cannot be enforced.
    """
    size = sum(len(message["content"]) for message in wanted.messages) + sum(map(len, wanted.prompts))
    if size <= _INLINE_CHARS and wanted.schema is None and not wanted.tools:
        return _prepare(runner, wanted, settings)
    return await asyncio.to_thread(_prepare, runner, wanted, settings)


def _prepare(runner: Runner, wanted: Wanted, settings: EngineSettings) -> Prepared:
    if runner.loaded.folder.embedding:
        raise CallerError(
            f"{runner.loaded.name} is an embedding model and cannot chat: name a chat model, or use /v1/embeddings",
            code="not_a_chat_model",
            param="model",
        )
    return _chat(runner, wanted, settings) if wanted.messages else _completion(runner, wanted, settings)


def _chat(runner: Runner, wanted: Wanted, settings: EngineSettings) -> Prepared:
    tokenizer = runner.loaded.tokenizer
    constrained = bool(wanted.forced) or wanted.schema is not None
    options = dict(wanted.template)
    if constrained and tokenizer.has_thinking:
        options["enable_thinking"] = False  # a schema leaves no place to think in
    prompt = chat.render(tokenizer, wanted.messages, wanted.tools, options)
    marks = chat.marks_of(tokenizer)
    rules = _grammar(runner, wanted, marks)
    job = _job(runner, wanted, settings, prompt.tokens, rules)
    job.continues = chat.continues(wanted.messages)
    bare = bool(wanted.forced) and not _marked(tokenizer, marks)
    state = "call" if bare else ("reasoning" if prompt.reasoning and not constrained else "content")
    parse = _parser(tokenizer, wanted)
    return Prepared([job], chat.Marks() if bare else marks, parse, state)


def _parser(tokenizer: Any, wanted: Wanted) -> Any:
    """Return what reads a call's text: the model's own parser, or plain JSON where the grammar forced it."""
    import json

    if wanted.forced:
        return json.loads
    if not wanted.tools or not tokenizer.has_tool_calling:
        return None
    return lambda text: tokenizer.tool_parser(text, wanted.tools)


def _marked(tokenizer: Any, marks: chat.Marks) -> bool:
    return bool(marks.call_start and marks.call_end) and chat.has_json_calls(tokenizer)


def _grammar(runner: Runner, wanted: Wanted, marks: chat.Marks) -> grammar.Grammar | None:
    found = None
    if wanted.forced:
        opening = closing = ""
        if _marked(runner.loaded.tokenizer, marks):
            opening = f'{_lark(runner, marks.call_start)} "\\n"'
            closing = f'"\\n" {_lark(runner, marks.call_end)}'
        found = grammar.compile_call(wanted.forced, opening, closing, "tools")
    elif wanted.schema is True:
        found = grammar.compile_object()
    elif wanted.schema is not None:
        found = grammar.compile_schema(wanted.schema, "response_format.json_schema.schema")
    if found is not None:
        runner.vocabulary.growth(found)  # here and not on the MLX thread, which others wait for
    return found


def _lark(runner: Runner, mark: str) -> str:
    """Return a mark as lark: its token where it is one, else its text."""
    import json

    ids = runner.loaded.tokenizer.encode(mark, add_special_tokens=False)
    return f"<[{ids[0]}]>" if len(ids) == 1 else json.dumps(mark)


def _completion(runner: Runner, wanted: Wanted, settings: EngineSettings) -> Prepared:
    channel, jobs = Channel(), list[Job]()
    for prompt in wanted.prompts:
        tokens = runner.loaded.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        job = _job(runner, wanted, settings, tokens, None)
        job.channel, job.first = channel, sum(other.choices for other in jobs)
        job.continues = True
        jobs.append(job)
    return Prepared(jobs, chat.Marks(), None, "content")


def _job(
    runner: Runner, wanted: Wanted, settings: EngineSettings, prompt: list[int], rules: grammar.Grammar | None
) -> Job:
    if not prompt or max(prompt) >= runner.loaded.vocabulary:
        raise CallerError("the prompt is empty or holds token ids that the model does not have", param="prompt")
    return Job(
        prompt=list(prompt),
        max_tokens=_limit(runner, wanted, settings, len(prompt)),
        sampling=wanted.how(runner.loaded.folder.defaults),
        stops=wanted.stops,
        grammar=rules,
        choices=wanted.choices,
        top_logprobs=None if wanted.top_logprobs is None else min(wanted.top_logprobs, runner.loaded.vocabulary),
    )


def _limit(runner: Runner, wanted: Wanted, settings: EngineSettings, prompt: int) -> int:
    """Return the answer's limit in tokens.

    Raises:
        CallerError: 400 ``context_length_exceeded``: prompt and limit together exceed the context.
    """
    context = min(runner.loaded.folder.context, settings.context or runner.loaded.folder.context)
    asked = wanted.max_tokens or 0
    if prompt + max(asked, 1) > context:
        raise CallerError(
            f"This model's maximum context length is {context} tokens. However, you requested {prompt + asked} tokens "
            f"({prompt} in the prompt, {asked} in the completion): shorten the prompt or lower max_tokens.",
            code="context_length_exceeded",
            param="messages" if wanted.messages else "prompt",
        )
    return asked or min(settings.max_tokens, context - prompt)
