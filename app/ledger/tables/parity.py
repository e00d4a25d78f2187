"""Tests of parity, the samples they rest on, what was done about them, and what they may cost."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text

from app.ledger.tables import metadata
from app.ledger.tables.money import Usd

parity_tests = Table(
    "parity_tests",
    metadata,
    Column("id", String(40), primary_key=True, comment="key and round"),
    Column("key", String(32), nullable=False, comment="digest of all that makes it one test"),
    Column("round", Integer, nullable=False, comment="from 0; one more each time it is armed again"),
    Column("role", String(64), nullable=False),
    Column("task", String(128), nullable=False, comment="empty where no task asked"),
    Column("target", String(256), nullable=False),
    Column("reference", String(256), nullable=False),
    Column("prompt_hash", String(64), nullable=False),
    Column("margin", Float, nullable=False),
    Column("alpha", Float, nullable=False),
    Column("reliability", Float, nullable=False),
    Column("budget", Integer, nullable=False, comment="samples"),
    Column("state", String(16), nullable=False),
    Column("rolled_back", Boolean, nullable=False, comment="whether the role is set back to the reference"),
    Column("armed", Boolean, nullable=False, comment="false once a newer round takes its place"),
    Column("began_ms", BigInteger, nullable=False),
    Column("decided_ms", BigInteger),
    Index("parity_tests_key", "key", "armed"),
    Index("parity_tests_role", "role", "state"),
)

shadow_samples = Table(
    "shadow_samples",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("test_id", String(40), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("role", String(64), nullable=False),
    Column("task", String(128), nullable=False),
    Column("target", String(256), nullable=False, comment="who answered the caller"),
    Column("reference", String(256), nullable=False, comment="who answered beside"),
    Column("difference", Integer, comment="thousandths, 1000: the target won; null where it could not be scored"),
    Column("method", String(16), nullable=False, comment="equal, faults, contract, judge, or why it was not scored"),
    Column("first", Integer, comment="the judge's verdict with the target's answer first: 1 it won, 0 tie, -1 it lost"),
    Column("second", Integer, comment="the same with the reference's answer first"),
    Column("again", Integer, comment="the first question asked again"),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("shadow_prompt_tokens", BigInteger),
    Column("shadow_completion_tokens", BigInteger),
    Column("shadow_usd", Usd, comment="the reference's answer; null where it has no price"),
    Column("judge_usd", Usd, comment="all verdicts; null where one has no price"),
    Index("shadow_samples_test", "test_id", "difference"),
    Index("shadow_samples_at", "at_ms"),
)

router_labels = Table(
    "router_labels",
    metadata,
    Column("id", String(32), primary_key=True, comment="of the sample"),
    Column("at_ms", BigInteger, nullable=False),
    Column("role", String(64), nullable=False),
    Column("target", String(256), nullable=False),
    Column("reference", String(256), nullable=False),
    Column("kind", String(32)),
    Column("complexity", Integer),
    Column("difference", Integer, nullable=False),
    Column("layout", String(32), nullable=False, comment="of the features"),
    Column("features", Text, nullable=False, comment="JSON: what the classifier saw, no text"),
)

parity_events = Table(
    "parity_events",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("role", String(64), nullable=False),
    Column("test_id", String(40), nullable=False),
    Column("event", String(16), nullable=False, comment="certified, breached, inconclusive, rearmed"),
    Column("who", String(128), nullable=False),
    Column("told", Text, nullable=False),
    Index("parity_events_at", "at_ms"),
)

shadow_days = Table(
    "shadow_days",
    metadata,
    Column("day", String(10), primary_key=True, comment="UTC, 2030-12-31"),
    Column("usd", Usd, nullable=False, comment="spent, and held back for what is under way"),
)
