"""A classifier beside the one in use, and what it is trained from."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.call import Target
from app.ledger import parity
from app.ledger.db import Database, address
from app.route import classify, labels
from app.route.parity import Sample, Trial
from app.route.sequential import Rules

if TYPE_CHECKING:
    from tests.conftest import Running, Start
    from tests.upstream import Upstream

ROOT = Path(__file__).parents[2]
TRIAL = Trial("small", "", Target("up", "a"), Target("up", "b"), rules=Rules(margin=0.9, budget=10**6))


async def counts(sluice: Running) -> list[str]:
    lines = (await sluice.client.get("/metrics")).text.splitlines()
    return [line for line in lines if line.startswith("sluice_classifier_candidate_total")]


async def test_its_verdicts_are_counted_and_nothing_goes_by_them(start: Start, up: Upstream) -> None:
    async with start(f"MODEL_SMALL=up/small\nCLASSIFIER_CANDIDATE={classify.WEIGHTS}\n", up=up) as sluice:
        async with asyncio.timeout(10):
            while not await counts(sluice):
                assert (await sluice.chat("auto", "Say hello.")).status_code == 200
        (line,) = await counts(sluice)
        assert line.startswith('sluice_classifier_candidate_total{verdict="same"} ')


def test_weights_that_are_none_are_told(tmp_path: Path) -> None:
    from app.parity.rival import _loaded

    path = tmp_path / "x.weights"
    whole = classify.WEIGHTS.read_bytes()
    for wrong in (
        b"no weights",
        b"",
        b"PK\x03\x04\x00\xff",
        b"[]\n",
        b"{}\n",
        whole[:-1],
        whole.replace(b"32768", b"32767", 1),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="train it again with scripts/train-classifier"):
            classify.load.__wrapped__(path)
        assert _loaded(str(path)) is None
    assert _loaded(str(tmp_path / "missing.weights")) is None


def test_a_label_holds_what_the_classifier_sees_and_no_text() -> None:
    messages = [{"role": "user", "content": "Describe the zebra finches of Timor."}]
    label = labels.label_of(messages, classify.classify(messages))
    assert label.kind in classify.KINDS
    assert all(word not in label.features for word in ("zebra", "finch", "Timor"))
    assert label == labels.label_of(messages, classify.classify(messages))


@pytest.mark.long
def test_what_a_ledger_knows_moves_the_difficulty(tmp_path: Path) -> None:
    """The weaker model fails on tax law: the candidate finds that harder, the weights in use do not know it."""
    ledger, out = tmp_path / "sluice.db", tmp_path / "candidate.weights"
    asyncio.run(write(f"sqlite:///{ledger}"))
    command = [sys.executable, str(ROOT / "scripts" / "train-classifier"), "--from-ledger", str(ledger)]
    command += ["--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sys.stdout.write(done.stdout)
    before, after = map(float, done.stdout.splitlines()[0].rpartition("failures ")[2].split(" -> "))
    assert after > before + 0.1
    model = classify.load(out)
    shift = [hard(model, text) - hard(classify.load(), text) for text in ("Explain tax law.", "Tell me of the tides.")]
    assert shift[0] > shift[1] + 0.2


def hard(model: classify.Model, text: str) -> float:
    from app.route import features

    return classify.score(model, features.extract(text, model.lexicon)).hard


async def write(url: str) -> None:
    found = address(url, "")
    assert found is not None
    database = Database(found)
    await database.start()
    rng = random.Random(1)
    for number in range(300):
        topic = rng.choice(["zebra finches", "tax law", "poems", "the tides"])
        messages = [{"role": "user", "content": f"Tell me about {topic}, part {number} please."}]
        lost = rng.random() < (0.6 if topic == "tax law" else 0.05)
        label = labels.label_of(messages, classify.classify(messages))
        sample = Sample(uuid.uuid4().hex, "r", number, -1.0 if lost else 0.0, "judge", label=label)
        await parity.add(database, TRIAL, sample, roll_back=False)
    await database.close()
