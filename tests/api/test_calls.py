from __future__ import annotations

import orjson

from tests.conftest import Running
from tests.upstream import Upstream


async def test_plain_answer_is_relayed_byte_for_byte(sluice: Running, up: Upstream) -> None:
    answer = await sluice.chat("auto")
    assert answer.status_code == 200
    assert answer.headers["x-sluice-target"] == "up/large"
    assert up.log[0].body["model"] == "large"
    assert orjson.loads(answer.content)["model"] == "large"
