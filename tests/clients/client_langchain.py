"""langchain-openai over both wires; langchain-tests' standard suites come on top, see langchain_suites.py."""

import openai
from harness import *
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    same(city, "Paris")
    return WEATHER


def _rows(**how):
    def llm(model=MODEL, **more):
        return ChatOpenAI(model=model, base_url=URL, api_key=KEY, max_retries=0, **how, **more)

    def chat():
        said = llm().invoke(SAY)
        same(said.text, TEXT)
        assert said.usage_metadata["output_tokens"] > 0

    def stream():
        same("".join(chunk.text for chunk in llm().stream(SAY)), TEXT)

    def tools():
        bound = llm().bind_tools([weather], strict=True)
        messages = [HumanMessage(CALL)]
        messages.append(bound.invoke(messages))
        same(messages[-1].tool_calls[0]["args"], {"city": "Paris"})
        messages.append(weather.invoke(messages[-1].tool_calls[0]))
        same(bound.invoke(messages).text, TOLD)

    def structured():
        same(llm().with_structured_output(Person).invoke("who?").model_dump(), EXPECTED)
        forced = llm().with_structured_output(Person, method="function_calling")
        same(forced.invoke("who?").model_dump(), EXPECTED)

    def vision():
        picture = {"type": "image", "base64": PNG, "mime_type": "image/png"}
        same(llm().invoke([HumanMessage([{"type": "text", "text": SAY}, picture])]).text, TEXT)
        saw_image()

    def multi_turn():
        messages = [SystemMessage("Be brief."), HumanMessage("SAY first")]
        first = llm().invoke(messages)
        assert isinstance(first, AIMessage)
        same(llm().invoke([*messages, first, HumanMessage(SAY)]).text, TEXT)
        saw_turns("Be brief.", "SAY first", '"first"', SAY)

    def errors():
        fails(lambda: llm(FILTERED).invoke("x"), openai.BadRequestError, "policy")
        # Of an error event in a stream of responses LangChain makes a ValueError.
        fails(lambda: list(llm(BROKEN).stream("x")), (openai.APIError, ValueError), "error")

    return {
        "chat": chat,
        "stream": stream,
        "tools": tools,
        "structured": structured,
        "vision": vision,
        "multi_turn": multi_turn,
        "errors": errors,
    }


def embed():
    vectors = OpenAIEmbeddings(model="up/e", base_url=URL, api_key=KEY, check_embedding_ctx_length=False)
    one, two = vectors.embed_documents(["red fox", "blue"]), vectors.embed_query("blue")
    assert max(abs(a - b) for a, b in zip(one[1], two)) < 1e-6


report(
    ["langchain-openai"],
    {
        "langchain-openai, chat completions": _rows(),
        "langchain-openai, responses": _rows(use_responses_api=True),
        "langchain-openai, embeddings": {"chat": embed},
    },
)
