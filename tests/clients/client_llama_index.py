"""LlamaIndex's OpenAILike: chat, and the older completions that it takes by default."""

import openai
from harness import *
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


def weather(city: str) -> str:
    """Tell the weather."""
    return WEATHER


def _llm(model=MODEL, *, chat=True):
    return OpenAILike(
        model=model,
        api_base=URL,
        api_key=KEY,
        max_retries=0,
        is_chat_model=chat,
        is_function_calling_model=chat,
    )


def chat():
    same(_llm().chat([ChatMessage("SAY " + TEXT)]).message.content, TEXT)


def stream():
    same("".join(part.delta for part in _llm().stream_chat([ChatMessage(SAY)])), TEXT)


def tools():
    llm, tool = _llm(), FunctionTool.from_defaults(weather)
    first = llm.chat_with_tools([tool], user_msg=CALL)
    call = llm.get_tool_calls_from_response(first)[0]
    same((call.tool_name, call.tool_kwargs), ("weather", {"city": "Paris"}))
    answer = ChatMessage(role="tool", content=WEATHER, additional_kwargs={"tool_call_id": call.tool_id})
    same(llm.chat([ChatMessage(CALL), first.message, answer]).message.content, TOLD)


def structured():
    found = _llm().as_structured_llm(Person).chat([ChatMessage("who?")])
    same(found.raw.model_dump(), EXPECTED)


def vision():
    message = ChatMessage(role="user", blocks=[TextBlock(text=SAY), ImageBlock(url=IMAGE)])
    same(_llm().chat([message]).message.content, TEXT)
    saw_image()


def multi_turn():
    messages = [ChatMessage(role="system", content="Be brief."), ChatMessage("SAY first")]
    messages += [_llm().chat(messages).message, ChatMessage(SAY)]
    same(_llm().chat(messages).message.content, TEXT)
    saw_turns("Be brief.", "SAY first", '"first"', SAY)


def errors():
    fails(lambda: _llm(FILTERED).chat([ChatMessage("x")]), openai.BadRequestError, "policy")


def c_chat():
    same(_llm(chat=False).complete(SAY).text, TEXT)


def c_stream():
    same("".join(part.delta for part in _llm(chat=False).stream_complete(SAY)), TEXT)


def c_errors():
    fails(lambda: _llm(FILTERED, chat=False).complete("x"), openai.BadRequestError, "policy")


report(
    ["llama-index-llms-openai-like"],
    {
        "llama-index OpenAILike, chat": {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "structured": structured,
            "vision": vision,
            "multi_turn": multi_turn,
            "errors": errors,
        },
        "llama-index OpenAILike, completions": {"chat": c_chat, "stream": c_stream, "errors": c_errors},
    },
)
