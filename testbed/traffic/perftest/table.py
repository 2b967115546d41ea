"""Reading the table that perftest's programs print, ours or the real ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from testbed.errors import InfrastructureError
from testbed.record import Figure

_MEBIBYTE_BITS: Final = 8 * (1 << 20)
_MICROSECOND: Final = 1e-6

#: Figure → (unit, definition), as ``docs/metrics.md`` has them.
DEFINITIONS: Final[Mapping[str, tuple[str, str]]] = {
    "write_bw_peak": ("bit/s", "best rate of any run of messages, post of its first to completion of its last"),
    "write_bw_average": (
        "bit/s",
        "payload bits of the messages counted over the time counted, both directions together",
    ),
    "write_bw_messages": ("1/s", "messages counted over the time counted, both directions together"),
    "write_lat_min": ("s", "shortest half round trip of a WRITE and the WRITE that answers it"),
    "write_lat_max": ("s", "longest half round trip but one, which perftest leaves out"),
    "write_lat_typical": ("s", "median half round trip"),
    "write_lat_average": ("s", "mean half round trip"),
    "write_lat_stdev": ("s", "standard deviation of half round trips"),
    "write_lat_p99": ("s", "half round trip that 99% do not exceed"),
    "write_lat_p999": ("s", "half round trip that 99.9% do not exceed"),
    "write_lat_round_trips": ("1/s", "round trips over the time counted"),
}

_HEAD: Final = re.compile(r"^\s*#bytes\s+#iterations\s+(?P<columns>\S.*?)\s*$")
#: Column as printed → (figure, what one of its units is in the figure's).
_COLUMNS: Final[Mapping[str, tuple[str, float]]] = {
    "BW peak[MB/sec]": ("write_bw_peak", _MEBIBYTE_BITS),
    "BW average[MB/sec]": ("write_bw_average", _MEBIBYTE_BITS),
    "BW peak[Gb/sec]": ("write_bw_peak", 1e9),
    "BW average[Gb/sec]": ("write_bw_average", 1e9),
    "MsgRate[Mpps]": ("write_bw_messages", 1e6),
    "t_min[usec]": ("write_lat_min", _MICROSECOND),
    "t_max[usec]": ("write_lat_max", _MICROSECOND),
    "t_typical[usec]": ("write_lat_typical", _MICROSECOND),
    "t_avg[usec]": ("write_lat_average", _MICROSECOND),
    "t_stdev[usec]": ("write_lat_stdev", _MICROSECOND),
    "99% percentile[usec]": ("write_lat_p99", _MICROSECOND),
    "99.9% percentile[usec]": ("write_lat_p999", _MICROSECOND),
    "tps average": ("write_lat_round_trips", 1.0),
    "CPU_Util[%]": ("", 1.0),
}
_COLUMN: Final = re.compile("|".join(re.escape(name) for name in sorted(_COLUMNS, key=len, reverse=True)))
_NUMBER: Final = re.compile(r"\d{1,18}(?:\.(\d{1,9}))?")


@dataclass(frozen=True)
class Row:
    """One size's line.

    Attributes:
        size: bytes of a message.
        iterations: as printed.
        values: figure → value in its unit.
        resolutions: figure → its last digit.
    """

    size: int
    iterations: int
    values: Mapping[str, float]
    resolutions: Mapping[str, float]

    def figures(self, scope: str) -> tuple[Figure, ...]:
        """Its figures. A peak of 0 was not looked for, as perftest says elsewhere in its output: unknown."""
        made = []
        for name, value in self.values.items():
            unit, definition = DEFINITIONS[name]
            if name == "write_bw_peak" and not value:
                note = "unknown: not looked for in a run by duration, or of many iterations"
                made.append(Figure(name, None, unit, definition, self.iterations, scope, note=note))
            else:
                made.append(Figure(name, value, unit, definition, self.iterations, scope, self.resolutions[name]))
        return tuple(made)


def read_table(text: str) -> tuple[Row, ...]:
    """The rows of the first table. Lines in between that are no rows, such as warnings, are passed over.

    Raises InfrastructureError for an output without a table or with an unknown column.
    """
    rows: list[Row] = []
    columns: Sequence[str] = ()
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head is not None and not columns:
            columns = _columns(head["columns"])
        elif columns:
            if line.startswith("-----"):
                break
            row = _row(line, columns)
            if row is not None:
                rows.append(row)
    if not rows:
        raise InfrastructureError(
            "this output has no table of results",
            found=text[-1000:],
            expected="a line that begins with ' #bytes #iterations', and rows of numbers below it",
        )
    return tuple(rows)


def _columns(text: str) -> list[str]:
    found = _COLUMN.findall(text)
    rest = _COLUMN.sub("", text).split()
    if rest or not found:
        raise InfrastructureError(
            "a table of results has unknown columns", found=" ".join(rest) or text, expected=", ".join(_COLUMNS)
        )
    return found


def _row(line: str, columns: Sequence[str]) -> Row | None:
    cells = [_NUMBER.fullmatch(cell) for cell in line.split()]
    if len(cells) != len(columns) + 2:
        return None
    size, iterations, *others = cells
    if size is None or iterations is None or size[1] or iterations[1]:
        return None
    values, resolutions = {}, {}
    for column, cell in zip(columns, others, strict=True):
        if cell is None:
            return None
        name, unit = _COLUMNS[column]
        if name:
            values[name] = float(cell[0]) * unit
            resolutions[name] = math.pow(10, -len(cell[1] or "")) * unit
    return Row(int(size[0]), int(iterations[0]), values, resolutions)
