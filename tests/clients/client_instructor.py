"""instructor: structured answers by forced tool calls, JSON schema and responses."""

import instructor
import openai
from harness import *
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


def _rows(mode):
    def client(model=MODEL):
        return instructor.from_openai(openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0), mode=mode)

    def ask(content="who?", model=MODEL, **more):
        messages = [{"role": "user", "content": content}]
        return client().chat.completions.create(
            model=model, messages=messages, response_model=Person, max_retries=0, **more
        )

    def structured():
        same(ask().model_dump(), EXPECTED)

    def stream():
        partials = client().chat.completions.create_partial(
            model=MODEL, messages=[{"role": "user", "content": "who?"}], response_model=Person
        )
        same(list(partials)[-1].model_dump(), EXPECTED)

    def vision():
        parts = [{"type": "text", "text": "who?"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
        same(ask(parts).model_dump(), EXPECTED)
        saw_image()

    def errors():
        fails(lambda: ask(model=FILTERED), Exception, "policy")

    features = {"structured": structured, "stream": stream, "errors": errors}
    return features if mode is instructor.Mode.RESPONSES_TOOLS else features | {"vision": vision}


report(
    ["instructor"],
    {
        "instructor, TOOLS": _rows(instructor.Mode.TOOLS),
        "instructor, JSON_SCHEMA": _rows(instructor.Mode.JSON_SCHEMA),
        "instructor, RESPONSES_TOOLS": _rows(instructor.Mode.RESPONSES_TOOLS),
    },
)
