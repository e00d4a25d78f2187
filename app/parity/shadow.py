"""Shadow calls: a share of a role's calls is answered by the reference as well, scored, and written down.

All of it happens after the caller was served, a few at once, and gives way to callers. What was asked and answered is
held in memory until it is scored, and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from app.call import Ask, Hints, Plan, Target
from app.dispatch import Answer, Walk
from app.errors import SluiceError
from app.ledger.db import DatabaseUnavailableError
from app.parity.calm import GaveWay, giving_way, room
from app.parity.purse import Need, Purse, most_usd, spent_usd
from app.parity.score import Contract, Said, contract_of, score
from app.route import known
from app.route.fit import room_for_answer
from app.route.labels import label_of
from app.route.parity import Sample, Trial, Verdicts
from app.route.sequential import Rules
from app.trace import Trace
from app.usage import read_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.gateway import Gateway
    from app.guard.lanes import Lane
    from app.ledger.db import Database
    from app.parity.judge import Judge
    from app.parity.keeper import Keeper
    from app.parity.purse import Prices
    from app.parity.score import Scored
    from app.route.parity import Method
    from app.settings import Settings
    from app.trace import Answered, Served, Usage

_LINE = 16
"""Calls that wait to be shadowed, per worker; those that come while it is full are no samples."""
_ANSWER_TOKENS = 4096
"""Tokens that a reference may answer where the caller set no limit, or four times the answer that it got if that is
more: only so is it known beforehand what it can cost."""
_SHADOW_S = 300.0
"""Seconds that one answer of a reference or a judge may take."""
_CLOSED = frozenset({"breached", "inconclusive"})
log = logging.getLogger("sluice")


class Dropped(Exception):  # noqa: N818 - no error: a sample less
    """A call that was chosen becomes no sample; ``why`` is one of app.telemetry.parity.DROPPED."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Job:
    """One call that is to be shadowed."""

    trial: Trial
    answered: Answered
    request_id: str


class Shadow:
    """What one worker shadows.

    Args:
        gateway: what all calls share.
        keeper: knows how the tests stand.
        prices: what targets cost.
        judge: compares free texts.
        chance: a number from 0 to 1, even.
    """

    def __init__(
        self,
        gateway: Gateway,
        keeper: Keeper,
        prices: Prices,
        judge: Judge,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._gateway = gateway
        self._keeper = keeper
        self._prices = prices
        self._judge = judge
        self._chance = chance
        self._line: asyncio.Queue[Job] = asyncio.Queue(_LINE)
        self._running: set[asyncio.Task[None]] = set()

    # -- choosing ------------------------------------------------------------------------------------------------------

    def after(self, ask: Ask, served: Served) -> None:
        """Choose calls for samples; called after each call that was served well."""
        settings, record = self._gateway.live.current, served.record
        if not settings.parity or record.cache == "hit" or ask.tenant in settings.shadow_opt_out:
            return
        if record.task is None and not self._draws(record.role, settings):
            return
        for each in served.answered():
            if record.task is None or self._draws(each.role, settings):
                self._choose(each, record.request_id, settings)

    def _draws(self, role: str | None, settings: Settings) -> bool:
        options = settings.parity.get(role or "")
        if options is None:
            return False
        return self._chance() < (settings.shadow_share if options.share is None else options.share)

    def _choose(self, answered: Answered, request_id: str, settings: Settings) -> None:
        trial = trial_of(answered, settings)
        if trial.target == trial.reference or not comparable(answered.body) or self._is_closed(trial):
            return
        try:
            self._line.put_nowait(Job(trial, answered, request_id))
        except asyncio.QueueFull:
            self._gateway.metrics.parity.dropped(trial.role, "full")

    def _is_closed(self, trial: Trial) -> bool:
        """Whether a test needs no more samples, as far as this worker knows."""
        standing = self._keeper.standings.get(trial.key)
        if standing is None:
            return False
        return standing.state in _CLOSED or sum(standing.counts.values()) >= trial.rules.budget

    # -- working -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work off what was chosen."""
        try:
            while True:
                job = await self._line.get()
                while len(self._running) >= self._gateway.live.current.shadow_slots:
                    await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(self._one(job))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _one(self, job: Job) -> None:
        try:
            await self._sample(job)
        except Dropped as dropped:
            self._gateway.metrics.parity.dropped(job.trial.role, dropped.why)
        except GaveWay:
            self._gateway.metrics.parity.dropped(job.trial.role, "busy")
        except DatabaseUnavailableError:
            self._gateway.metrics.parity.dropped(job.trial.role, "database")
        except Exception:
            log.exception("parity: a shadow of %s failed", job.request_id)

    async def _sample(self, job: Job) -> None:
        settings, database = self._gateway.live.current, self._gateway.database
        if database is None or database.trouble is not None:
            raise Dropped("database")
        asked = _asked(job)
        if not self._judge.targets(settings) and contract_of(job.answered.body) is None:
            raise Dropped("judge")
        await room(self._lanes((job.trial.reference,), settings))
        money = Purse(database, Decimal(repr(settings.shadow_usd_per_day)))
        need = Need((job.trial.reference,), _bytes(asked.body), room_for_answer(asked.body))
        await self._hold_back(money, [need])
        trace, spent = Trace(), None
        try:
            sample = await self._scored(job, asked, money, settings, trace)
            await self._written(database, job, sample, settings)
            spent = spent_usd(trace.attempts, self._prices)
        except Dropped:
            spent = spent_usd(trace.attempts, self._prices)
            raise
        finally:  # of what was ended in the middle nobody knows the cost: all that was held back counts
            await money.settle(money.reserved if spent is None else spent)

    def _lanes(self, targets: Sequence[Target], settings: Settings) -> list[Lane]:
        return [self._gateway.lanes.of(settings.backend_configs[each.backend], each) for each in targets]

    async def _hold_back(self, money: Purse, needs: list[Need]) -> None:
        """Hold back what calls can cost at most.

        Raises:
            Dropped: the day's limit does not allow it, or nobody knows what they cost.
        """
        usd = most_usd(needs, self._prices)
        if usd is None:
            raise Dropped("unpriced")
        if not await money.hold_back(usd):
            raise Dropped("budget")

    async def _scored(self, job: Job, asked: Ask, money: Purse, settings: Settings, trace: Trace) -> Sample:
        """Ask the reference, and the judge where it is needed."""
        said, usage = await self._referenced(job, asked, settings, trace)
        shadow_usd = spent_usd(trace.attempts, self._prices)
        before = len(trace.attempts)
        answered = job.answered
        found = await asyncio.to_thread(_compare, answered, said)
        judges = self._judge.targets(settings)
        verdicts = Verdicts()
        if found.difference is None and judges:
            verdicts = await self._judged(answered, said.text, money, settings, trace)
        difference = _difference(found, verdicts, judged=bool(judges))
        return Sample(
            id=uuid.uuid4().hex,
            request_id=job.request_id,
            at_ms=int(time.time() * 1000),
            difference=difference,
            method=_method(found, judged=bool(judges), scored=difference is not None),
            verdicts=verdicts,
            usage=answered.usage,
            shadow_usage=usage,
            shadow_usd=shadow_usd,
            judge_usd=spent_usd(trace.attempts[before:], self._prices),
            label=label_of(answered.body["messages"], answered.verdict) if settings.router_labels else None,
        )

    async def _judged(
        self, answered: Answered, reference: str, money: Purse, settings: Settings, trace: Trace
    ) -> Verdicts:
        """Return what the judge says; nothing where that would cost too much today."""
        judges = self._judge.targets(settings)
        need = self._judge.needs(judges, _bytes([answered.body["messages"], answered.text, reference]))
        try:
            await self._hold_back(money, need)
        except Dropped as dropped:
            self._gateway.metrics.parity.dropped(answered.role, dropped.why)
            return Verdicts()
        lanes = self._lanes(judges, settings)
        await room(lanes)
        return await giving_way(lanes, self._judge.compare(answered, reference, settings, trace))

    async def _referenced(self, job: Job, asked: Ask, settings: Settings, trace: Trace) -> tuple[Said, Usage | None]:
        """Return what the reference says.

        Raises:
            Dropped: it failed, or was cut off by a limit that is not the caller's.
        """
        plan = Plan(candidates=(job.trial.reference,))
        once = settings.model_copy(update={"retries": 0})  # each try costs, and the caller has an answer
        walk = Walk(asked, plan, once, self._gateway.backends, self._gateway.lanes, trace)
        try:
            answer = await giving_way(self._lanes((job.trial.reference,), settings), walk.first(walk.whole))
        except SluiceError as error:
            raise Dropped("failed") from error
        said = _said(answer)
        if said.finish == "length" and not _has_limit(job.answered.body):
            raise Dropped("cut")
        return said, read_usage(answer.whole.body.get("usage"))

    async def _written(self, database: Database, job: Job, sample: Sample, settings: Settings) -> None:
        """Write the sample down, and act on what it decides."""
        from app.ledger import parity

        changed = await parity.add(database, job.trial, sample, roll_back=settings.parity_rollback)
        trial = job.trial
        self._gateway.metrics.parity.sampled(trial.role, trial.task, trial.target, sample.method)
        if changed is None:
            return
        level = logging.ERROR if changed.state == "breached" else logging.WARNING
        log.log(level, "ALERT parity: %s", parity.told(changed, changed.state))
        await self._keeper.adopt(await parity.rollbacks(database))
        self._keeper.took(await parity.standings(database))


def trial_of(answered: Answered, settings: Settings) -> Trial:
    """Return the test that an answer is a sample of."""
    options = settings.parity[answered.role]
    rules = Rules(
        margin=settings.parity_margin if options.margin is None else options.margin,
        alpha=settings.parity_alpha,
        reliability=settings.judge_reliability,
        budget=settings.parity_max_samples,
    )
    reference = known.expand(Target.parse(options.reference))
    return Trial(answered.role, answered.task, answered.target, reference, answered.prompt_hash, rules)


def comparable(body: dict[str, Any]) -> bool:
    """Whether answers to a call are single texts, and all that it asks is text."""
    several = (body.get("n") or 1) > 1
    if several or any(body.get(name) for name in ("tools", "functions", "logprobs", "audio", "modalities")):
        return False
    contents = (message.get("content") for message in body["messages"])
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return all(part.get("type") in {"text", "refusal"} for part in parts)


def _asked(job: Job) -> Ask:
    """Return the call that the reference is sent: the caller's, in one piece, with a limit."""
    answered, unwanted = job.answered, {"stream", "stream_options", "models", "user", "metadata"}
    body = {name: value for name, value in answered.body.items() if name not in unwanted}
    if not _has_limit(body):
        body["max_tokens"] = max(_ANSWER_TOKENS, 4 * (answered.usage.completion if answered.usage else 0))
    deadline = asyncio.get_running_loop().time() + _SHADOW_S
    return Ask("chat", body | {"model": str(job.trial.reference)}, Hints(), "parity", deadline, job.request_id)


def _has_limit(body: dict[str, Any]) -> bool:
    return bool(body.get("max_tokens") or body.get("max_completion_tokens"))


def _bytes(value: Any) -> int:
    """Return the bytes of a value as JSON: more tokens a prompt cannot have."""
    return len(orjson.dumps(value, default=str))


def _compare(answered: Answered, said: Said) -> Scored:
    kind = answered.verdict.kind if answered.verdict is not None else None
    contract = contract_of(answered.body)
    if answered.read is not None and contract is not None:
        contract = Contract(contract.schema, answered.read)
    return score(answered.body, kind, Said(answered.text, answered.finish), said, contract)


def _said(answer: Answer) -> Said:
    choice = answer.whole.body["choices"][0]
    message = choice.get("message") or {}
    text = message.get("content") or message.get("refusal")
    return Said(text if isinstance(text, str) else "", choice.get("finish_reason"))


def _difference(found: Scored, verdicts: Verdicts, *, judged: bool) -> float | None:
    """Return the difference; where nobody judges labels that differ, the reference is right."""
    if found.difference is not None:
        return found.difference
    if not judged:
        return -found.weight if found.by_contract else None
    verdict = verdicts.difference
    return None if verdict is None else verdict * found.weight


def _method(found: Scored, *, judged: bool, scored: bool) -> Method:
    if not scored:
        return "unjudged"
    return found.method if judged or found.difference is not None else "contract"
