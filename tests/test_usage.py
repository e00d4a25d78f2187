from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.trace import Usage
from app.usage import read_usage


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (None, None),
        ({}, None),
        ("x", None),
        ({"prompt_tokens": 1, "completion_tokens": 2}, Usage(1, 2)),
        ({"prompt_tokens": -1, "completion_tokens": "2"}, Usage()),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}, Usage(5, cached=2)),
        ({"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 2}}, Usage(0, 5, reasoning=2)),
        ({"prompt_tokens": 1, "prompt_tokens_details": [1], "completion_tokens_details": 7}, Usage(1)),
        ({"prompt_tokens": 1, "cost": 0.5}, Usage(1, cost_usd=0.5)),
        ({"prompt_tokens": 1, "cost": "much"}, Usage(1)),
        ({"prompt_tokens": 1, "cost": True}, Usage(1)),
    ],
)
def test_usage_objects(told: Any, usage: Usage | None) -> None:
    assert read_usage(told) == usage


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_tokens_details", "cost"]), _JSON))
def test_no_usage_breaks_anything(told: dict[str, Any]) -> None:
    found = read_usage(told)
    assert found is None or found.prompt >= 0


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"input_tokens": 7, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 2}}, Usage(7, 3, cached=2)),
        ({"input_tokens": 1, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 4}}, Usage(1, 9, 0, 4)),
        (  # Anthropic's own: 10 beside 3 read and 2 written are 15
            {
                "input_tokens": 10,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 2,
                "output_tokens": 5,
            },
            Usage(15, 5, cached=3, cache_write=2),
        ),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cache_write_tokens": 4}}, Usage(9, cache_write=4)),
        ({"prompt_tokens": 1, "cost": 0.5, "is_byok": False, "cost_details": None}, Usage(1, cost_usd=0.5)),
        (
            {"prompt_tokens": 1, "cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}},
            Usage(1, cost_usd=0.21000000000000002),
        ),
        ({"prompt_tokens": 1, "cost": -1}, Usage(1)),
        ({"prompt_tokens": 1, "cost": float("nan")}, Usage(1)),
    ],
)
def test_wires_that_count_otherwise(told: Any, usage: Usage) -> None:
    assert read_usage(told) == usage
