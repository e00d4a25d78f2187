"""How tests of parity stand, for people and for programs. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from app.route.parity import judge_report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal

    from app.route.parity import JudgeReport, Standing


def as_json(
    standings: Iterable[Standing], spent_usd: Decimal, limit_usd: float, events: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return everything there is to tell.

    Args:
        standings: the tests, newest first.
        spent_usd: what today's shadows cost, with what is held back.
        limit_usd: SHADOW_USD_PER_DAY.
        events: the audit, newest first.
    """
    return {
        "tests": [_test(each) for each in standings],
        "today": {"spent_usd": float(spent_usd), "limit_usd": limit_usd},
        "events": [{**each, "at": _when(each["at_ms"])} for each in events],
    }


def _test(standing: Standing) -> dict[str, Any]:
    trial, found = standing.trial, standing.reading()
    return {
        "id": standing.id,
        "role": trial.role,
        "task": trial.task or None,
        "target": str(trial.target),
        "reference": str(trial.reference),
        "prompt_hash": trial.prompt_hash or None,
        "state": standing.state,
        "rolled_back": standing.rolled_back,
        "round": standing.round,
        "samples": found.samples,
        "unscored": standing.unscored,
        "difference": {"low": found.low, "mean": found.mean, "high": found.high},
        "margin": trial.rules.margin,
        "alpha": trial.rules.alpha,
        "reliability": trial.rules.reliability,
        "budget": trial.rules.budget,
        "judge": _judge(judge_report(standing.judged)),
        "began_at": _when(standing.began_ms),
        "decided_at": _when(standing.decided_ms),
    }


def _judge(told: JudgeReport) -> dict[str, Any] | None:
    if not told.pairs:
        return None
    return {
        "pairs": told.pairs,
        "order_agreement": told.agreed / told.pairs,
        "position_bias": told.position_bias,
        "repeated": told.repeated,
        "retest_agreement": told.same / told.repeated if told.repeated else None,
    }


def _when(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")


def as_table(report: Mapping[str, Any]) -> str:
    """Return the report as text, some lines a test."""
    lines = [line for test in report["tests"] for line in _lines(test)]
    today = report["today"]
    money = f"shadows cost {today['spent_usd']:.4f} of {today['limit_usd']:.2f} USD today"
    return "\n".join([*(lines or ["no test has a sample yet"]), money])


def _lines(test: Mapping[str, Any]) -> list[str]:
    task = f" task/{test['task']}" if test["task"] else ""
    back = ", the role is set back" if test["rolled_back"] else ""
    lines = [f"{test['role']}{task}: {test['target']} against {test['reference']}: {test['state']}{back}"]
    difference = test["difference"]
    if difference["mean"] is not None:
        points = "{:+.2f} [{:+.2f}, {:+.2f}] points".format(
            *(100 * difference[name] for name in ("mean", "low", "high"))
        )
        lines.append(f"  {points}, margin {100 * test['margin']:g}, {test['samples']:,} of {test['budget']:,} samples")
    judge = test["judge"]
    if judge is not None:
        retest = "" if judge["retest_agreement"] is None else f", {judge['retest_agreement']:.0%} asked again"
        agreement = f"agrees with itself in {judge['order_agreement']:.0%} the other way round{retest}"
        lines.append(f"  judge: {agreement}, position bias {judge['position_bias']:+.1%}")
    return lines
