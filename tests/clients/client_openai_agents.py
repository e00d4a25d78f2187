"""OpenAI's Agents SDK: responses by default, chat completions on demand."""

import agents
import openai
from harness import *
from pydantic import BaseModel

agents.set_tracing_disabled(disabled=True)


class Person(BaseModel):
    name: str
    age: int


@agents.function_tool
def weather(city: str) -> str:
    """Tell the weather."""
    same(city, "Paris")
    return WEATHER


def _rows(kind):
    def agent(model=MODEL, **more):
        client = openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0)
        return agents.Agent(name="a", instructions="Be brief.", model=kind(model=model, openai_client=client), **more)

    async def chat():
        same((await agents.Runner.run(agent(), SAY)).final_output, TEXT)

    async def stream():
        result = agents.Runner.run_streamed(agent(), SAY)
        deltas = []
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                deltas.append(event.data.delta)
        same(("".join(deltas), result.final_output), (TEXT, TEXT))

    async def tools():
        same((await agents.Runner.run(agent(tools=[weather]), CALL)).final_output, TOLD)
        result = agents.Runner.run_streamed(agent(tools=[weather]), CALL)
        async for _ in result.stream_events():
            pass
        same(result.final_output, TOLD)

    async def structured():
        found = await agents.Runner.run(agent(output_type=Person), "who?")
        same(found.final_output.model_dump(), EXPECTED)

    async def vision():
        parts = [
            {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
            {"type": "input_text", "text": SAY},
        ]
        same((await agents.Runner.run(agent(), [{"role": "user", "content": parts}])).final_output, TEXT)
        saw_image()

    async def multi_turn():
        first = await agents.Runner.run(agent(), "SAY first")
        items = [*first.to_input_list(), {"role": "user", "content": SAY}]
        same((await agents.Runner.run(agent(), items)).final_output, TEXT)
        saw_turns("Be brief.", "SAY first", '"first"', SAY)

    async def errors():
        await afails(lambda: agents.Runner.run(agent(FILTERED), "x"), openai.BadRequestError, "policy")

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
    ["openai-agents"],
    {
        "openai-agents, responses": _rows(agents.OpenAIResponsesModel),
        "openai-agents, chat completions": _rows(agents.OpenAIChatCompletionsModel),
    },
)
