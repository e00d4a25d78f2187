"""Anthropic's Python SDK over /v1/messages."""

import anthropic
from harness import *
from pydantic import BaseModel

ai = anthropic.Anthropic(base_url=ROOT, api_key=KEY, max_retries=0)
_TOOL = {"name": "weather", "description": "tells the weather", "input_schema": PARAMETERS}


class Person(BaseModel):
    name: str
    age: int


def _say(content, **more):
    body = {"model": MODEL, "max_tokens": 500, "messages": [{"role": "user", "content": content}]}
    return ai.messages.create(**(body | more))


def chat():
    said = _say(SAY)
    same((said.content[0].text, said.stop_reason), (TEXT, "end_turn"))
    assert said.usage.output_tokens > 0


def count():
    assert ai.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": SAY}]).input_tokens > 0


def stream():
    with ai.messages.stream(model=MODEL, max_tokens=500, messages=[{"role": "user", "content": SAY}]) as events:
        same("".join(events.text_stream), TEXT)
        same(events.get_final_message().stop_reason, "end_turn")


def tools():
    messages = [{"role": "user", "content": CALL}]
    first = ai.messages.create(model=MODEL, max_tokens=500, messages=messages, tools=[_TOOL])
    call = next(block for block in first.content if block.type == "tool_use")
    same((first.stop_reason, call.name, call.input), ("tool_use", "weather", {"city": "Paris"}))
    result = {"type": "tool_result", "tool_use_id": call.id, "content": WEATHER}
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    same(ai.messages.create(model=MODEL, max_tokens=500, messages=messages, tools=[_TOOL]).content[0].text, TOLD)
    with ai.messages.stream(model=MODEL, max_tokens=500, messages=messages[:1], tools=[_TOOL]) as events:
        block = next(b for b in events.get_final_message().content if b.type == "tool_use")
    same(block.input, {"city": "Paris"})


def structured():
    found = ai.messages.parse(
        model=MODEL, max_tokens=500, messages=[{"role": "user", "content": "who?"}], output_format=Person
    )
    same(found.parsed_output.model_dump(), EXPECTED)


def vision():
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    same(_say([image, {"type": "text", "text": SAY}]).content[0].text, TEXT)
    saw_image()


def multi_turn():
    messages = [{"role": "user", "content": "SAY first"}]
    messages.append({"role": "assistant", "content": _say("", messages=messages, system="Be brief.").content})
    messages.append({"role": "user", "content": SAY})
    same(_say("", messages=messages, system="Be brief.").content[0].text, TEXT)
    saw_turns("Be brief.", "SAY first", '"first"', SAY)


def errors():
    fails(lambda: _say("x", model=FILTERED), anthropic.BadRequestError, "content management policy")
    fails(lambda: list(_say("x", model=BROKEN, stream=True)), anthropic.APIError, "error")


report(
    ["anthropic"],
    {
        "anthropic": {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "structured": structured,
            "vision": vision,
            "multi_turn": multi_turn,
            "errors": errors,
        },
        "anthropic, count_tokens": {"chat": count},
    },
)
