from __future__ import annotations

from typing import Any

import pytest

from app.route.needs import needs


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, set()),
        ({"n": 1, "logprobs": False, "tools": [], "response_format": {"type": "json_object"}}, set()),
        ({"n": 2}, {"n"}),
        ({"logprobs": True, "top_logprobs": 3, "logit_bias": {"1": 2}}, {"logprobs", "logit_bias"}),
        ({"tools": [{}], "tool_choice": "auto"}, {"tools"}),
        ({"tools": [{}], "tool_choice": "required"}, {"tools", "tool_choice"}),
        ({"tools": [{}], "tool_choice": "none"}, {"tools", "tool_choice"}),
        ({"functions": [{}]}, {"tools"}),
        ({"response_format": {"type": "json_schema"}}, {"schema"}),
    ],
)
def test_fields(body: dict[str, Any], found: set[str]) -> None:
    assert needs(body) == found


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ({"type": "text", "text": "x"}, set()),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}, {"vision"}),
        ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, {"vision", "image_url"}),
        ({"type": "image_url", "image_url": {}}, {"vision", "image_url"}),
        ({"type": "image_url"}, {"vision", "image_url"}),
        ({"type": "input_audio", "input_audio": {}}, {"audio"}),
    ],
)
def test_parts_anywhere_in_the_conversation(part: dict[str, Any], found: set[str]) -> None:
    messages = [{"role": "user", "content": [part]}, {"role": "assistant", "content": None}, {"role": "user"}]
    assert needs({"messages": messages}) == found
