"""Text and loose values from outside, made safe to keep and to show.

A result holds what tests, kernels and devices said. Nobody's message may make a result unwritable, flood a
page, or move a reader's cursor, so everything is bounded and made visible on the way in.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BeforeValidator, JsonValue

_KEPT = frozenset("\n\t")
#: Controls, and format characters such as bidirectional overrides; surrogates cannot be written as UTF-8.
_UNSEEN = frozenset({"Cc", "Cf", "Cs"})
_DEEPEST = 6
_AS_JSON = json.JSONEncoder(ensure_ascii=False).encode


def visible(text: str) -> str:
    r"""The text with control, format and surrogate characters written out, ``\x1b`` for an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in _KEPT or unicodedata.category(char) not in _UNSEEN else ascii(char)[1:-1] for char in text
    )


def clipped(text: str, most: int) -> str:
    """At most ``most`` characters: the beginning, how many are left out, and the end."""
    if len(text) <= most:
        return text
    gap = f" … {len(text) - most} characters or more left out … "
    room = max(most - len(gap), 0)
    tail = room // 3
    return (text[: room - tail] + gap + text[len(text) - tail :])[:most]


def bounded(most: int) -> BeforeValidator:
    """A text field that clips and cleans what it is given instead of refusing it."""
    return BeforeValidator(lambda value: _short(value, most) if isinstance(value, str) else value)


def bounded_apart(most: int) -> BeforeValidator:
    """The same for names: two that differ only in what is left out stay two, by a digest at the end."""

    def read(value: object) -> object:
        if not isinstance(value, str) or len(visible(value[: most + 1])) <= most:
            return _short(value, most) if isinstance(value, str) else value
        digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:12]
        return f"{_short(value, most - len(digest) - 1)}#{digest}"

    return BeforeValidator(read)


def _short(value: str, most: int) -> str:
    # Cut first, so that a huge message is not cleaned in full; cleaning can lengthen it again.
    return clipped(visible(clipped(value, 2 * most)), most)


def plain(value: Any, depth: int = 0) -> JsonValue:
    """Anything as JSON: what has no JSON form, NaN and infinity included, becomes its text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return clipped(visible(value), 1000)
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {clipped(visible(str(key)), 100): plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray | memoryview):
            return [plain(item, depth + 1) for item in value]
    return clipped(visible(str(value)), 1000)


def plain_mapping(value: Mapping[str, Any], most: int) -> dict[str, JsonValue]:
    """A mapping as JSON of at most ``most`` characters; a larger one is kept as the beginning of its text."""
    if not value:
        return {}
    found = plain(value)
    text = _AS_JSON(found)
    if len(text) <= most and isinstance(found, dict):
        return found
    return {"clipped": clipped(text, most // 2)}
