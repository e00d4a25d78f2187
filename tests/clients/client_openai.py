"""The official Python SDK, over chat completions, responses and the older endpoints."""

import json

import openai
from harness import *
from pydantic import BaseModel

ai = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0)


class Person(BaseModel):
    name: str
    age: int


# -- chat completions


def _chat(text, **more):
    return ai.chat.completions.create(**({"model": MODEL, "messages": [{"role": "user", "content": text}]} | more))


def chat():
    said = _chat(SAY)
    same(said.choices[0].message.content, TEXT)
    assert said.usage.total_tokens > 0


def stream():
    chunks = list(_chat(SAY, stream=True, stream_options={"include_usage": True}))
    same("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), TEXT)
    assert chunks[-1].usage.total_tokens > 0


_TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS, "strict": True}}


def tools():
    messages = [{"role": "user", "content": CALL}]
    first = ai.chat.completions.create(model=MODEL, messages=messages, tools=[_TOOL]).choices[0]
    same(first.finish_reason, "tool_calls")
    call = first.message.tool_calls[0]
    same((call.function.name, json.loads(call.function.arguments)), ("weather", {"city": "Paris"}))
    messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": WEATHER}]
    same(ai.chat.completions.create(model=MODEL, messages=messages, tools=[_TOOL]).choices[0].message.content, TOLD)
    with ai.chat.completions.stream(model=MODEL, messages=messages[:1], tools=[_TOOL]) as events:
        streamed = events.get_final_completion().choices[0].message.tool_calls[0]
    same((streamed.function.name, json.loads(streamed.function.arguments)), ("weather", {"city": "Paris"}))


def structured():
    found = ai.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "who?"}], response_format=Person
    )
    same(found.choices[0].message.parsed.model_dump(), EXPECTED)


def vision():
    parts = [{"type": "text", "text": SAY}, {"type": "image_url", "image_url": {"url": IMAGE}}]
    same(_chat(parts).choices[0].message.content, TEXT)
    saw_image()


def multi_turn():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "SAY first"}]
    messages.append(ai.chat.completions.create(model=MODEL, messages=messages).choices[0].message)
    messages.append({"role": "user", "content": SAY})
    same(ai.chat.completions.create(model=MODEL, messages=messages).choices[0].message.content, TEXT)
    saw_turns("Be brief.", "SAY first", '"first"', SAY)


def errors():
    fails(lambda: _chat("x", model=FILTERED), openai.BadRequestError, "content management policy")
    fails(lambda: list(_chat("x", model=BROKEN, stream=True)), openai.APIError, "error")
    fails(lambda: _chat("x", messages=[]), openai.BadRequestError, "messages")


# -- responses


def _say(text, **more):
    return ai.responses.create(**({"model": MODEL, "input": text} | more))


def r_chat():
    said = _say(SAY)
    same(said.output_text, TEXT)
    assert said.usage.total_tokens > 0


def r_stream():
    events = list(_say(SAY, stream=True))
    same("".join(e.delta for e in events if e.type == "response.output_text.delta"), TEXT)
    same((events[0].type, events[-1].type), ("response.created", "response.completed"))
    same([e.sequence_number for e in events], list(range(len(events))))


_FLAT = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}


def r_tools():
    items = [{"role": "user", "content": CALL}]
    first = _say(items, tools=[_FLAT])
    call = next(item for item in first.output if item.type == "function_call")
    same((call.name, json.loads(call.arguments)), ("weather", {"city": "Paris"}))
    items += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": WEATHER}]
    same(_say(items, tools=[_FLAT]).output_text, TOLD)
    with ai.responses.stream(model=MODEL, input=items[:1], tools=[_FLAT]) as events:
        streamed = next(item for item in events.get_final_response().output if item.type == "function_call")
    same(json.loads(streamed.arguments), {"city": "Paris"})


def r_structured():
    found = ai.responses.parse(model=MODEL, input="who?", text_format=Person)
    same(found.output_parsed.model_dump(), EXPECTED)


def r_vision():
    parts = [{"type": "input_text", "text": SAY}, {"type": "input_image", "image_url": IMAGE, "detail": "auto"}]
    same(_say([{"role": "user", "content": parts}]).output_text, TEXT)
    saw_image()


def r_multi_turn():
    items = [{"role": "user", "content": "SAY first"}]
    items += _say(items, instructions="Be brief.").output
    items.append({"role": "user", "content": SAY})
    same(_say(items, instructions="Be brief.").output_text, TEXT)
    saw_turns("Be brief.", "SAY first", '"first"', SAY)


def r_errors():
    fails(lambda: _say("x", model=FILTERED), openai.BadRequestError, "content management policy")
    fails(lambda: list(_say("x", model=BROKEN, stream=True)), openai.APIError, "error")


# -- completions and embeddings


def c_chat():
    same(ai.completions.create(model=MODEL, prompt=SAY).choices[0].text, TEXT)


def c_stream():
    same("".join(c.choices[0].text for c in ai.completions.create(model=MODEL, prompt=SAY, stream=True)), TEXT)


def c_errors():
    fails(lambda: ai.completions.create(model=FILTERED, prompt="x"), openai.BadRequestError, "policy")


def e_chat():
    one = ai.embeddings.create(model="up/e", input=["red fox", "blue"])
    two = ai.embeddings.create(model="up/e", input="blue", encoding_format="float", dimensions=16)
    assert max(abs(a - b) for a, b in zip(one.data[1].embedding, two.data[0].embedding)) < 1e-6


def e_errors():
    fails(lambda: ai.embeddings.create(model="up/e", input=""), openai.BadRequestError, "input")


report(
    ["openai"],
    {
        "openai, chat completions": {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "structured": structured,
            "vision": vision,
            "multi_turn": multi_turn,
            "errors": errors,
        },
        "openai, responses": {
            "chat": r_chat,
            "stream": r_stream,
            "tools": r_tools,
            "structured": r_structured,
            "vision": r_vision,
            "multi_turn": r_multi_turn,
            "errors": r_errors,
        },
        "openai, completions": {"chat": c_chat, "stream": c_stream, "errors": c_errors},
        "openai, embeddings": {"chat": e_chat, "errors": e_errors},
    },
)
