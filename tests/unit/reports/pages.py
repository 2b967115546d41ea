"""A page, read with the standard library's HTML parser."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def text(self) -> str:
        """All text within, runs of white space as one space."""
        parts = [child if isinstance(child, str) else child.text() for child in self.children]
        return " ".join(" ".join(parts).split())

    def all(self, tag: str = "", class_: str = "", **attributes: str) -> list[Element]:
        """Every element below with this tag, class and attributes, in the order of the page."""
        found = []
        for child in self.children:
            if isinstance(child, str):
                continue
            if (
                tag in ("", child.tag)
                and (not class_ or class_ in child.attributes.get("class", "").split())
                and all(child.attributes.get(key) == value for key, value in attributes.items())
            ):
                found.append(child)
            found += child.all(tag, class_, **attributes)
        return found

    def one(self, tag: str = "", class_: str = "", **attributes: str) -> Element:
        found = self.all(tag, class_, **attributes)
        assert len(found) == 1, f"{len(found)} elements {tag} {class_} {attributes}"
        return found[0]

    def rows(self) -> list[list[str]]:
        """The cells of a table's body."""
        return [
            [cell.text() for cell in row.children if isinstance(cell, Element)]
            for row in self.one("tbody").children
            if isinstance(row, Element)
        ]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}> at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(html: str) -> Element:
    """The page as a tree; a tag left open or closed out of order fails."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [reader.root], f"left open: {[element.tag for element in reader.open]}"
    return reader.root
