"""The Wireshark dissector in Lua, made from the table: ``mrc.lua`` beside this module is what the package ships.

The program is in ``mrc.template.lua``; the table takes the place of one line of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from testbed.errors import UsageError
from testbed.mrc.wire.anatomy import ENUMERATED, HEXADECIMAL, SIGNED
from testbed.mrc.wire.table import Header, Table

NAME: Final = "mrc.lua"
SHIPPED: Final = Path(__file__).with_name(NAME)
_TEMPLATE: Final = Path(__file__).with_name("mrc.template.lua")
_MARK: Final = "--@TABLE@\n"
_TSHARK_S: Final = 30.0


def generate(table: Table) -> str:
    """The dissector's text for a table."""
    choices = table.choices
    enumerations = {name: dict(values) for name, values in table.enumerations.items()}
    enumerations["opcode"] = {opcode.name: number for number, opcode in table.opcodes.items()}
    lines = [
        f"local READING = {_text(table.reading)}",
        f"local PORT = {choices.udp_destination_port}",
        f"local EV_FLOW_LABEL, EV_FLOW_LABEL_IN = {_text(choices.ev_flow_label)}, {_text(choices.ev_flow_label_in)}",
        "local ENUMERATIONS = {",
        *(f"    {name} = {_names(values)}," for name, values in enumerations.items()),
        "}",
        "local HEADERS = {",
        *(line for header in table.headers.values() for line in _header(header)),
        "}",
        "local OPCODES = {",
    ]
    for number, opcode in table.opcodes.items():
        headers = ", ".join(map(_text, opcode.headers))
        payload = str(opcode.payload).lower()
        lines.append(
            f"    [{number:#04x}] = {{name = {_text(opcode.name)}, headers = {{{headers}}}, payload = {payload}}},"
        )
    lines.append("}")
    before, after = _TEMPLATE.read_text(encoding="utf-8").split(_MARK)
    return before + "\n".join(lines) + "\n" + after


def plugin_folder() -> Path:
    """Where Wireshark looks for the user's plugins: as tshark tells, else where its documentation says."""
    tshark = shutil.which("tshark")
    if tshark is not None:
        try:
            told = subprocess.run(
                [tshark, "-G", "folders"], capture_output=True, text=True, timeout=_TSHARK_S, check=False
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            told = ""
        match = re.search(r"^Personal Lua Plugins:\s*(\S.*)$", told, re.MULTILINE)
        if match:
            return Path(match[1].strip())
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", str(Path.home()))) / "Wireshark" / "plugins"
    return Path.home() / ".local" / "lib" / "wireshark" / "plugins"


def install(path: Path, text: str) -> None:
    """Write the dissector, whole or not at all. Raises ``UsageError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise UsageError(
            "the dissector cannot be written there",
            where=str(path),
            found=error.strerror or str(error),
            remedy="`testbed mrc dissector > mrc.lua`, and `wireshark -X lua_script:mrc.lua`",
        ) from None


def _header(header: Header) -> list[str]:
    lines = [f"    {header.name} = {{bytes = {header.bytes}, fields = {{"]
    for field in header.fields.values():
        key = (header.name, field.name)
        names = "opcode" if key == ("BTH", "opcode") else ENUMERATED.get(key)
        parts = [f"name = {_text(field.name)}", f"offset = {field.offset}", f"bits = {field.bits}"]
        parts += ["signed = true"] if key in SIGNED else []
        parts += ["hex = true"] if field.name in HEXADECIMAL else []
        parts += [f"names = {_text(names)}"] if names else []
        parts += [f"meaning = {_text(field.meaning)}"] if field.meaning else []
        lines.append(f"        {{{', '.join(parts)}}},")
    return [*lines, "    }},"]


def _names(values: Mapping[str, int]) -> str:
    return "{" + ", ".join(f"[{number:#04x}] = {_text(name)}" for name, number in values.items()) + "}"


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
