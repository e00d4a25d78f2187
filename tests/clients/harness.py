"""What every client's script shares; it runs in the client's own environment, so it uses the standard library alone.

A script calls ``report`` with its rows. Each feature is a function that raises where the client does not get what it
asked for; what comes of it is printed as a line of JSON.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import json
import os
import sys
import traceback
import urllib.request

URL = os.environ.get("SLUICE_URL", "")
"""Base URL of the gateway, ending in ``/v1``."""
ROOT = URL.removesuffix("/v1")
UPSTREAM = os.environ.get("UPSTREAM_URL", "")
KEY = "any"
MODEL = "up/ok"
FEATURES = ("chat", "stream", "tools", "structured", "vision", "multi-turn", "errors")
TEXT = "The gate is open, and the water runs."
SAY = f"SAY {TEXT}"
CALL = 'CALL weather {"city": "Paris"}'
WEATHER = "21 degrees"
TOLD = f"The tool said: {WEATHER}"
FILTERED = "up/m-400filter"
"""Answers 400, content_filter."""
BROKEN = "up/m-ssemid:2"
"""Breaks off in the middle of a stream with an error."""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = f"data:image/png;base64,{PNG}"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
EXPECTED = {"name": "text", "age": 1}
"""What the scripted upstream makes of that schema."""


def same(found, wanted):
    """Raise unless both are the same."""
    if found != wanted:
        raise AssertionError(f"got {found!r}, not {wanted!r}")


def last_body():
    """Return the body of the newest call that reached the upstream."""
    with urllib.request.urlopen(f"{UPSTREAM}/_log") as answer:
        return json.load(answer)["log"][-1]["body"]


def saw_image():
    """Raise unless the newest call brought the image to the upstream."""
    if PNG not in json.dumps(last_body()):
        raise AssertionError("the image did not reach the backend")


def saw_turns(*texts):
    """Raise unless the newest call brought these texts to the upstream, in this order."""
    told = json.dumps(last_body(), ensure_ascii=False)
    places = [told.find(text) for text in texts]
    if -1 in places or places != sorted(places):
        raise AssertionError(f"the conversation did not reach the backend: {places}")


def fails(call, kinds, told):
    """Raise unless the call fails with one of these exceptions, in these words."""
    try:
        result = call()
        if inspect.isawaitable(result):
            asyncio.run(_awaited(result))
    except kinds as error:
        if told not in str(error):
            raise AssertionError(f"the error says {error}") from error
        return
    raise AssertionError("no error")


async def afails(call, kinds, told):
    """Do the same in an event loop."""
    try:
        await call()
    except kinds as error:
        if told not in str(error):
            raise AssertionError(f"the error says {error}") from error
        return
    raise AssertionError("no error")


async def _awaited(value):
    return await value


def report(packages, rows):
    """Run every feature of every row and print what came of it."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps({"versions": versions}), flush=True)
    good = True
    for row, features in rows.items():
        for feature in FEATURES:
            told = _run(features.get(feature.replace("-", "_")))
            good &= told["ok"] is not False
            print(json.dumps({"row": row, "feature": feature, **told}), flush=True)
    sys.exit(0 if good else 1)


def _run(work):
    if work is None:
        return {"ok": None, "note": "the client has no such thing"}
    try:
        result = work()
        if inspect.isawaitable(result):
            asyncio.run(_awaited(result))
    except Exception as error:
        traceback.print_exc()
        return {"ok": False, "note": f"{type(error).__name__}: {error}"[:300]}
    return {"ok": True, "note": ""}
