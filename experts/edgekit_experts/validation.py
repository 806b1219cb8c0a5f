"""What is wrong with a value that a person wrote, in words. The checks are pydantic's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, get_type_hints

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

# What a value must be, by the kind of pydantic's complaint; others are told in its own words.
_WANTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a table",
    "string_type": "a text",
    "tuple_type": "a list",
}
# The same where the limit is a part of the complaint.
_LIMITS = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
    "enum": "{expected}",
}


def first_fault(error: ValidationError, key: str = "") -> str:
    """`crop.0 must be a whole number, not 'a'`: the first fault; `key` is the name of what was validated as a whole."""
    # Of the branches of a union, the one that fits furthest is what was meant.
    faults = error.errors(include_url=False)
    fault = max(faults, key=lambda each: len(each["loc"])) if key else faults[0]
    where = ".".join(str(part) for part in fault["loc"])
    if key:
        where = f"each entry of {key!r}" if any(isinstance(part, int) for part in fault["loc"]) else key
    match fault["type"]:
        case "missing":
            return f"{where!r} is missing"
        case "extra_forbidden":
            return f"there is no key {where!r}"
        case "too_short":
            return f"{where} has too few entries: at least {fault['ctx']['min_length']}"
        case kind if wanted := _WANTED.get(kind) or _LIMITS.get(kind, "").format_map(fault.get("ctx", {})):
            return f"{where or 'the whole'} must be {wanted}, not {_shown(fault['input'])}"
    text = fault["msg"].removeprefix("Value error, ")
    words = f"{text[:1].lower()}{text[1:]}"
    return f"{where} = {_shown(fault['input'])}: {words}" if where else words


def parameter_fault(constructor: Callable[..., Any], key: str, value: object) -> str:
    """Why a value from a TOML file is not what the constructor's annotation of that parameter asks for.

    Empty where it is, and where there is no annotation or one that says nothing about plain values. Nothing is
    converted: a text that holds a number is a text.
    """
    try:
        hint: Any = get_type_hints(constructor).get(key, Any)
        adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(strict=True))
    except (NameError, TypeError, PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return ""
    try:
        # Through JSON, whose kinds of values are TOML's: what is a tuple in Python is written as a list.
        adapter.validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        return first_fault(error, key)
    return ""


def written(pattern: str, how: str) -> AfterValidator:
    """For texts of a form of their own: `how` says in words what `pattern` asks of the whole."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(how)
        return text

    return AfterValidator(check)


def size_of(value: object) -> object:
    """(height, width) from `WIDTHxHEIGHT`, the one way in which people write sizes; for pydantic's BeforeValidator.

    What is no text is passed on as it is: code hands over (height, width). Raises ValueError for other texts.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
    if not match:
        raise ValueError("a size is written WIDTHxHEIGHT, such as 960x544")
    return int(match[2]), int(match[1])


def line_of(text: str, *keys: str) -> int | None:
    """The line of a TOML file, counted from 1, of the innermost of `keys` that is there; None where none is."""
    found, lines = None, text.splitlines()
    for key in keys:
        for number, line in enumerate(lines[found or 0 :], start=(found or 0) + 1):
            if line.strip() == f"[{key}]" or re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line):
                found = number
                break
            if found and line.startswith("["):
                break  # another table's
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
