"""The types that several groups of settings share."""

from __future__ import annotations

from typing import Annotated

import orjson
from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode


def comma_list(value: object) -> object:
    """Split a comma list; anything but a string passes."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def json_object(value: object) -> object:
    """Decode a JSON object, here and not by pydantic-settings: what is wrong with it is then a mistake like any other.

    Raises:
        ValueError: it is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        decoded: object = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from error
    return decoded


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_list)]
JsonMap = Annotated[dict[str, str], NoDecode, BeforeValidator(json_object)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
