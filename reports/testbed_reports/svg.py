"""SVG elements as escaped markup: all that the drawings of a page need of a drawing library."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape


def number(value: float) -> str:
    """A coordinate in as few characters as a hundredth of a pixel needs."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def el(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """An element. Children that are not markup are escaped, as are attributes.

    Attribute names end in ``_`` where Python reserves them, and have ``_`` for ``-``; None leaves one out.
    """
    pairs = []
    for key, value in attributes.items():
        if value is not None:
            name = key.rstrip("_")
            # SVG's own camel-case attributes have no underscore and pass unchanged.
            pairs.append(Markup(' {}="{}"').format(name.replace("_", "-"), _attribute(value)))
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(tag, Markup("").join(pairs), inner)


def together(parts: Iterable[str]) -> Markup:
    """Elements one after the other."""
    return Markup("").join(escape(part) for part in parts)


def text(content: str, x: float, y: float, class_: str = "", **attributes: str | float | None) -> Markup:
    """A line of text."""
    return el("text", content, x=x, y=y, class_=class_ or None, **attributes)


def _attribute(value: str | float) -> str:
    return value if isinstance(value, str) else number(value)
