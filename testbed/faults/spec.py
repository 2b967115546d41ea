"""A fault as a value: which kind, of what, with which parameters; as it stands in files and journals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from testbed.errors import UsageError, nearest
from testbed.faults import addresses, packets, programs, switches
from testbed.faults.kinds import Kind
from testbed.faults.parameters import Value
from testbed.faults.targets import EXAMPLES, kind_of

#: Every kind of fault, by name.
KINDS: Mapping[str, Kind] = {
    kind.name: kind for kind in (*switches.KINDS, *packets.KINDS, *programs.KINDS, *addresses.KINDS)
}

_KEYS = ("kind", "target", "parameters")


@dataclass(frozen=True)
class FaultSpec:
    """A fault in its declarative form.

    Attributes:
        kind: its name in :data:`KINDS`.
        target: name of what it happens to.
        parameters: those that are given, as JSON and YAML have values. :meth:`checked` completes them.
    """

    kind: str
    target: str
    parameters: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, given: Any) -> Self:
        """A fault from a mapping with ``kind``, ``target`` and the parameters, nested or beside them.

        Raises UsageError that says what was wrong, with the nearest name there is.
        """
        if not isinstance(given, Mapping):
            raise UsageError("a fault is a mapping", found=repr(given)[:80], expected="kind, target and parameters")
        for key in ("kind", "target"):
            if not isinstance(given.get(key), str):
                raise UsageError(f"a fault has a {key}", found=repr(given)[:80], expected=f"{key}: a name")
        beside = {key: value for key, value in given.items() if key not in _KEYS}
        nested = given.get("parameters", {})
        if not isinstance(nested, Mapping) or beside.keys() & nested.keys():
            raise UsageError("parameters are a mapping", where=given["kind"], found=repr(nested)[:80])
        return cls(given["kind"].replace("-", "_"), given["target"], {**nested, **beside}).checked()

    def as_dict(self) -> dict[str, Any]:
        """The mapping that :meth:`from_dict` reads."""
        return {"kind": self.kind, "target": self.target, "parameters": dict(self.parameters)}

    def checked(self) -> Self:
        """The same with every parameter checked and defaults filled in.

        Raises UsageError for an unknown kind or parameter, for a target of another kind, and for a wrong value. Whether
        a lab has the target shows when the fault is made on its fabric.
        """
        kind = self.about
        if kind_of(self.target) not in kind.targets:
            raise UsageError(
                f"{kind.name} does not happen to a {kind_of(self.target)}",
                found=self.target,
                expected=" or ".join(f"a {target} ({EXAMPLES[target]})" for target in kind.targets),
            )
        known = {parameter.name: parameter for parameter in kind.parameters}
        for name in self.parameters:
            if name not in known:
                raise UsageError(
                    f"{kind.name} takes no {name!r}",
                    where=f"{kind.name} of {self.target}",
                    found=name,
                    expected=", ".join(known) or "no parameters",
                    nearest=nearest(name, known),
                )
        values = {}
        for name, parameter in known.items():
            value = self.parameters.get(name)
            if value is None and parameter.required:
                raise UsageError(f"{kind.name} needs a {name}", where=self.target, expected=parameter.help)
            if value is not None:
                values[name] = parameter.parse(value, f"{kind.name} of {self.target}")
            elif parameter.default is not None:
                values[name] = parameter.default
        return type(self)(kind.name, self.target, values)

    @property
    def about(self) -> Kind:
        """What kind it is. Raises UsageError for an unknown one, with the nearest."""
        found = KINDS.get(self.kind)
        if found is None:
            raise UsageError(
                f"there is no fault {self.kind!r}",
                found=self.kind,
                expected=", ".join(KINDS),
                nearest=nearest(self.kind, KINDS),
            )
        return found
