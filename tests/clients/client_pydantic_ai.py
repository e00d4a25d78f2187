"""pydantic-ai with its three wires."""

import base64

from anthropic import AsyncAnthropic
from harness import *
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Person(BaseModel):
    name: str
    age: int


def _openai(kind):
    def made(model):
        client = AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0)
        return kind(model, provider=OpenAIProvider(openai_client=client))

    return made


def _anthropic(model):
    client = AsyncAnthropic(base_url=ROOT, api_key=KEY, max_retries=0)
    return AnthropicModel(model, provider=AnthropicProvider(anthropic_client=client))


def _rows(made):
    def agent(model=MODEL, **more):
        return Agent(made(model), instructions="Be brief.", **more)

    async def chat():
        result = await agent().run(SAY)
        same(result.output, TEXT)
        assert result.usage.output_tokens > 0

    async def stream():
        async with agent().run_stream(SAY) as result:
            same("".join([part async for part in result.stream_text(delta=True, debounce_by=None)]), TEXT)

    async def tools():
        one = agent()

        @one.tool_plain
        def weather(city: str) -> str:
            same(city, "Paris")
            return WEATHER

        same((await one.run(CALL)).output, TOLD)

    async def structured():
        same((await agent(output_type=Person).run("who?")).output.model_dump(), EXPECTED)

    async def vision():
        picture = BinaryContent(base64.b64decode(PNG), media_type="image/png")
        same((await agent().run([SAY, picture])).output, TEXT)
        saw_image()

    async def multi_turn():
        one = agent()
        first = await one.run("SAY first")
        same((await one.run(SAY, message_history=first.all_messages())).output, TEXT)
        saw_turns("Be brief.", "SAY first", '"first"', SAY)

    async def errors():
        await afails(lambda: agent(FILTERED).run("x"), ModelHTTPError, "policy")

        async def broken():
            async with agent(BROKEN).run_stream("x") as result:
                await result.get_output()

        await afails(broken, (ModelHTTPError, ModelAPIError), "error")

    return {
        "chat": chat,
        "stream": stream,
        "tools": tools,
        "structured": structured,
        "vision": vision,
        "multi_turn": multi_turn,
        "errors": errors,
    }


report(
    ["pydantic-ai-slim"],
    {
        "pydantic-ai, openai: (responses)": _rows(_openai(OpenAIResponsesModel)),
        "pydantic-ai, openai-chat:": _rows(_openai(OpenAIChatModel)),
        "pydantic-ai, anthropic:": _rows(_anthropic),
    },
)
