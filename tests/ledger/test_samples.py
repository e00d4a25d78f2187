"""Usage as each backend really tells it, priced; every sum is written out.

Rates are USD per million tokens, from genai-prices 0.2.3 unless the sample says otherwise.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from app.call import Target
from app.ledger.prices import Prices, prices_of
from app.settings import Live
from app.transcript import Transcript
from app.usage import read_usage

if TYPE_CHECKING:
    from pathlib import Path

OPENAI = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 192, "accepted_prediction_tokens": 0},
}
GROQ = {
    "queue_time": 0.018,
    "prompt_tokens": 130,
    "prompt_time": 0.008,
    "completion_tokens": 250,
    "completion_time": 0.9,
    "total_tokens": 380,
    "total_time": 0.908,
}
OPENROUTER = {
    "prompt_tokens": 194,
    "completion_tokens": 2,
    "total_tokens": 196,
    "cost": 0.00014,
    "is_byok": False,
    "cost_details": {"upstream_inference_cost": None},
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
GEMINI = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1250}
WORKERS_AI = {"prompt_tokens": 48, "completion_tokens": 110, "total_tokens": 158}
ANTHROPIC = {
    "input_tokens": 10,
    "cache_read_input_tokens": 3000,
    "cache_creation_input_tokens": 2000,
    "output_tokens": 500,
}
OLLAMA = {"prompt_tokens": 26, "completion_tokens": 298, "total_tokens": 324}

SAMPLES = [
    # 86 x 0.15 + 1,920 cached x 0.075 + 300 x 0.60 = 12.9 + 144 + 180 = 336.9
    ("openai/gpt-4o-mini", OPENAI, "0.0003369"),
    # 130 x 0.59 + 250 x 0.79 = 76.7 + 197.5 = 274.2
    ("groq/llama-3.3-70b-versatile", GROQ, "0.0002742"),
    # what OpenRouter says it charged, whatever the list has
    ("openrouter/openai/gpt-4o", OPENROUTER, "0.00014"),
    # its list price where an answer tells no cost: 1,000 x 0.36 + 50 x 0.40 = 360 + 20 = 380
    ("openrouter/qwen/qwen-2.5-72b-instruct", {"prompt_tokens": 1000, "completion_tokens": 50}, "0.00038"),
    # 1,000 x 1.25 + 50 x 10 = 1,250 + 500 = 1,750
    ("gemini/gemini-2.5-pro", GEMINI, "0.00175"),
    # over 200,000 tokens everything is dearer: 200,001 x 2.50 + 100 x 15 = 500,002.5 + 1,500 = 501,502.5
    ("gemini/gemini-2.5-pro", {"prompt_tokens": 200_001, "completion_tokens": 100}, "0.5015025"),
    # 48 x 0.293 + 110 x 2.253 = 14.064 + 247.83 = 261.894
    ("workers-ai/@cf/meta/llama-3.3-70b-instruct-fp8-fast", WORKERS_AI, "0.000261894"),
    # its own counting leaves cached ones out: 10 x 3 + 3,000 x 0.30 + 2,000 x 3.75 + 500 x 15 = 15,930
    ("anthropic/claude-sonnet-4-5", ANTHROPIC, "0.01593"),
    # on a machine of one's own
    ("ollama/qwen2.5", OLLAMA, "0"),
    ("runloop/qwen2.5-coder", OLLAMA, "0"),
    ("mlx/mlx-community/Phi-3.5-mini-instruct-4bit", OLLAMA, "0"),
    # nobody knows
    ("openai/gpt-of-tomorrow", OPENAI, None),
    ("openrouter/qwen/qwen-2.5-32b-instruct", WORKERS_AI, None),
    ("elsewhere/any", WORKERS_AI, None),
    # an address that the list knows
    ("together-by-another-name/Gryphe/MythoMax-L2-13b", {"prompt_tokens": 1000}, "0.0003"),
]


@pytest.fixture
async def prices(tmp_path: Path) -> Prices:
    env = tmp_path / ".env"
    env.write_text(
        "BACKENDS__ELSEWHERE__BASE_URL=https://llm.example.com/v1\n"
        "BACKENDS__TOGETHER_BY_ANOTHER_NAME__BASE_URL=https://api.together.xyz/v1\n"
        "RUNLOOP_API_KEY=k\nQWEN_OLLAMA_BLUEPRINT_ID=b\n"
    )
    return await prices_of(Live(env))


@pytest.mark.parametrize(("target", "told", "cost"), SAMPLES)
async def test_real_usage_costs_what_a_pencil_says(
    target: str, told: dict[str, Any], cost: str | None, prices: Prices
) -> None:
    usage = read_usage(told)
    assert usage is not None
    found = prices.cost_usd(Target.parse(target), usage)
    assert found == (None if cost is None else Decimal(cost))


async def test_groqs_stream_tells_usage_in_a_place_of_its_own(prices: Prices) -> None:
    script = Transcript()
    script.take({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]})
    script.take({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "r", "usage": GROQ}})
    found = prices.cost_usd(Target.parse("groq/llama-3.3-70b-versatile"), script.usage(7))
    assert found == Decimal("0.0002742")


async def test_an_estimate_is_reckoned_the_same_way(prices: Prices) -> None:
    assert prices.estimate_usd(Target.parse("groq/llama-3.3-70b-versatile"), 130, 250) == Decimal("0.0002742")
