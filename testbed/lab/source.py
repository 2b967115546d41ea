"""A YAML file as data, with the line of each key and value. The YAML that JSON can say, and nothing more.

Scalars follow YAML 1.2's core schema, as editors read them: ``yes`` is text, ``010`` is ten, ``0x1234`` a number.
Anchors, aliases, tags and second documents are refused, so the data is never larger than its file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from testbed.errors import LabError
from testbed.lab.problems import Path
from testbed.lab.rig import SECRET_KEYS

MAX_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 20
#: What is expected in place of nothing.
_EMPTY: Final = {"lab": "name, planes, t0_per_plane, t1_per_plane and hosts_per_t0, each with a value"}


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the base class's own attribute


_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
for _tag, _pattern, _first in (
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", rf"(?:{_INT.pattern})$", "-+0123456789"),
    ("float", rf"(?:{_FLOAT.pattern})$", "-+.0123456789"),
):
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


@dataclass(frozen=True, slots=True)
class Source:
    """A file's data, and where each part of it stands: path → (line, column), both counted from 1."""

    where: str
    data: dict[str, Any]
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    errors: tuple[LabError, ...] = ()

    def at(self, path: Path, *, key: bool = False) -> str:
        """``file:line:column`` of a path, or of the nearest part around it that is in the file."""
        while path and path not in self.values:
            path, key = path[:-1], True
        mark = (self.keys if key else self.values).get(path) or self.values.get(path) or (1, 1)
        return f"{self.where}:{mark[0]}:{mark[1]}"


def read(text: str, where: str, *, what: str = "lab") -> Source:
    """Parse YAML text into data and marks; ``what`` the file describes, for errors.

    Returns:
        the source; duplicate keys and the like are in its ``errors``, with the rest of the data still usable.

    Raises:
        LabError: not YAML, not a mapping, empty, or YAML that is refused.
    """
    try:
        _refuse_features(text, where, what)
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, where) from None
    except yaml.reader.ReaderError as error:
        place = text.count("\n", 0, error.position) + 1
        found = f"character {error.character:#06x}" if isinstance(error.character, int) else str(error.reason)
        raise LabError("this is not text", where=f"{where}:{place}", found=found, expected="YAML in UTF-8") from None
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value.strip()):
        raise LabError(f"the {what} file is empty", where=where, expected=_EMPTY.get(what, "key: value lines"))
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else f"the text {node.value[:40]!r}"
        raise LabError(f"a {what} is a mapping", where=_place(where, node), found=kind, expected="key: value lines")
    builder = _Builder(where)
    data = builder.mapping(node, ())
    return Source(where, data, builder.values, builder.keys, tuple(builder.errors))


def _refuse_features(text: str, where: str, what: str) -> None:
    """Bound nesting and refuse anchors, aliases, tags and second documents, before anything is built."""
    depth = documents = 0
    events: Iterator[Any] = yaml.parse(text, Loader=_CoreLoader)
    for event in events:
        place = f"{where}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise LabError(f"a {what} file holds one document", where=place, found="a second `---`")
        elif isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            mark = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise LabError(
                f"anchors and aliases are not used in {what} files",
                where=place,
                found="" if _may_be_secret(text, event) else f"{mark}{event.anchor}",
                remedy="write the value out; quote it if it is meant to start with that character",
            )
        elif getattr(event, "tag", None):
            found = "" if _may_be_secret(text, event) else event.tag
            raise LabError(f"tags are not used in {what} files", where=place, found=found, remedy="remove the tag")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise LabError("this nests too deeply", where=place, expected=f"at most {_MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _may_be_secret(text: str, event: Any) -> bool:
    """Whether what stands here may be a password, of which nothing is told."""
    lines = text.splitlines()[max(0, event.start_mark.line - 1) : event.start_mark.line + 1]
    return any(key in line for line in lines for key in SECRET_KEYS)


def _syntax(error: yaml.MarkedYAMLError, where: str) -> LabError:
    mark = error.problem_mark or error.context_mark
    place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
    problem = error.problem or error.context or "cannot be read"
    tab = "\\t" in problem
    return LabError(
        "this is not YAML",
        where=place,
        found="a tab" if tab else problem,
        expected="spaces" if tab else "",
        remedy="indent with spaces" if tab else "",
    )


def _place(where: str, node: yaml.Node) -> str:
    return f"{where}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


class _Builder:
    """Turns nodes into data, noting marks and errors by the way."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.values: dict[Path, tuple[int, int]] = {}
        self.keys: dict[Path, tuple[int, int]] = {}
        self.errors: list[LabError] = []

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self._note(self.values, path, node)
        out: dict[str, Any] = {}
        for key, value in self._pairs(node):
            self._note(self.keys, (*path, key.value), key)
            out[key.value] = self._value(value, (*path, key.value))
        return out

    def _pairs(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        seen: dict[str, yaml.ScalarNode] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                found = repr(key.value[:40]) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                where = _place(self.where, key)
                self.errors.append(LabError("a key is a text", where=where, found=found, expected="a name"))
            elif key.value in seen:
                first = seen[key.value].start_mark.line + 1
                error = LabError(
                    f"the key {key.value!r} stands here twice",
                    where=_place(self.where, key),
                    found=f"first in line {first}",
                    remedy="keep one of them",
                )
                self.errors.append(error)
            else:
                seen[key.value] = key
                yield key, value

    def _value(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        self._note(self.values, path, node)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, position)) for position, item in enumerate(node.value)]
        return _scalar(node)

    @staticmethod
    def _note(marks: dict[Path, tuple[int, int]], path: Path, node: yaml.Node) -> None:
        marks[path] = (node.start_mark.line + 1, node.start_mark.column + 1)


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    kind, text = node.tag.rsplit(":", 1)[-1], str(node.value)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        # Python refuses to convert digits without end; such a number is out of every range anyway.
        return int(text, 10 if text.lstrip("+-").isdigit() else 0) if len(text) < 100 else text
    if kind == "float":
        return float(text)
    return text
