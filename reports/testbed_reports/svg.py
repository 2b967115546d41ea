"""SVG elements as escaped markup: all that the drawings of a page need of a drawing library."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from html import escape

from markupsafe import Markup


def number(value: float) -> str:
    """A coordinate in as few characters as a hundredth of a pixel needs."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def el(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """An element. Children that are not markup are escaped, as are attributes.

    Attribute names end in ``_`` where Python reserves them, and have ``_`` for ``-``; None leaves one out.
    """
    parts = [f"<{tag}"]
    for key, value in attributes.items():
        if value is not None:
            parts.append(f' {_name(key)}="{_safe(value) if isinstance(value, str) else number(value)}"')
    parts.append(">")
    parts += [_safe(child) for child in children]
    parts.append(f"</{tag}>")
    # Names are ours, and everything else was escaped: Markup's own format does the same, six times slower.
    return Markup("".join(parts))  # noqa: S704


def together(parts: Iterable[str]) -> Markup:
    """Elements one after the other."""
    return Markup("".join([_safe(part) for part in parts]))  # noqa: S704 - escaped where it is not markup


def text(content: str, x: float, y: float, class_: str = "", **attributes: str | float | None) -> Markup:
    """A line of text."""
    return el("text", content, x=x, y=y, class_=class_ or None, **attributes)


@lru_cache(maxsize=256)
def _name(key: str) -> str:
    # SVG's own camel-case attributes have no underscore and pass unchanged.
    return key.rstrip("_").replace("_", "-")


def _safe(value: str) -> str:
    return value if isinstance(value, Markup) else escape(value)
