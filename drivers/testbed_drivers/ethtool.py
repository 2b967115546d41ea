"""ethtool's and dcb's words, as ethtool(8) and dcb-pfc(8) have them: text, since JSON depends on the version."""

from __future__ import annotations

import re
from typing import Final

from testbed.fabric.abilities import Fec, Optics

_SPEED: Final = re.compile(r"^\s*Speed: (\d+)Mb/s", re.MULTILINE)
_POWER: Final = re.compile(r"/ *(-?(?:inf|[0-9.]+)) dBm")
_RX: Final = ("rcvr signal avg optical power", "receiver signal average optical power", "receiver signal oma")
_TX: Final = ("transmit avg optical power", "laser output power")
_NO_FEC: Final = ("None", "Off", "Auto", "Not reported")


def speed(text: str) -> int | None:
    """bit/s of ``ethtool DEV``; None where it is unknown, as of a port without carrier."""
    found = _SPEED.search(text)
    return None if found is None else int(found[1]) * 1_000_000


def fields(text: str) -> list[tuple[str, str]]:
    """The lines ``name : value``, in their order; names may come more than once."""
    pairs = (line.partition(":") for line in text.splitlines())
    return [(name.strip(), value.strip()) for name, colon, value in pairs if colon]


def fec(text: str) -> Fec | None:
    """Of ``ethtool -I --show-fec DEV``; None for what is none.

    Names vary by version: with ``Supported/`` or without, ``encoding`` or ``encodings``.
    """
    found = {name.lower().rstrip("s"): value for name, value in fields(text)}
    active = next((value for name, value in found.items() if name.startswith("active fec encoding")), None)
    if active is None:
        return None
    configured = next((value for name, value in found.items() if "configured fec encoding" in name), "")
    return Fec(
        active=tuple(word for word in active.split() if word not in _NO_FEC),
        configured=tuple(configured.split()),
        corrected=_count(found.get("corrected_block")),
        uncorrectable=_count(found.get("uncorrectable_block")),
    )


def optics(text: str) -> Optics | None:
    """Of ``ethtool -m DEV``, for SFP (SFF-8472), QSFP (SFF-8636) and CMIS modules; None for what is none."""
    found = fields(text)
    once = dict(reversed(found))
    if "Identifier" not in once:
        return None
    return Optics(
        kind=once["Identifier"].partition("(")[2].rstrip(")") or once["Identifier"],
        vendor=once.get("Vendor name", ""),
        part=once.get("Vendor PN", ""),
        serial=once.get("Vendor SN", ""),
        temperature_c=_number(once.get("Module temperature", "")),
        rx_dbm=_powers(found, _RX),
        tx_dbm=_powers(found, _TX),
        alarms=tuple(" ".join(name.split()) for name, value in found if _is_alarm(name) and value == "On"),
    )


def _is_alarm(name: str) -> bool:
    return "alarm" in name and "threshold" not in name and "implemented" not in name


def _powers(found: list[tuple[str, str]], names: tuple[str, ...]) -> tuple[float, ...]:
    out = []
    for name, value in found:
        plain = name.partition("(")[0].strip().lower()
        power = _POWER.search(value)
        if plain in names and power is not None:
            out.append(float(power[1]))
    return tuple(out)


def pause(text: str) -> tuple[bool | None, bool | None]:
    """RX and TX of ``ethtool -a DEV``: what was negotiated where that is told, otherwise what was set."""
    found = dict(fields(text))

    def one(way: str) -> bool | None:
        word = found.get(f"{way} negotiated") or found.get(way)
        return {"on": True, "off": False}.get(word or "")

    return one("RX"), one("TX")


def pfc(text: str) -> tuple[int, ...] | None:
    """Priorities with PFC, of ``dcb pfc show dev DEV prio-pfc``; None for what is none."""
    found = re.search(r"^prio-pfc((?: +[0-7]:(?:on|off))+) *$", text, re.MULTILINE)
    if found is None:
        return None
    return tuple(int(pair[0]) for pair in found[1].split() if pair.endswith(":on"))


def driver_info(text: str) -> dict[str, str]:
    """Of ``ethtool -i DEV``: ``driver``, ``version``, ``firmware-version``, ``bus-info`` and more."""
    return {name: value for name, value in fields(text) if value}


def _count(text: str | None) -> int | None:
    found = re.match(r"\d+", text or "")
    return None if found is None else int(found[0])


def _number(text: str) -> float | None:
    found = re.match(r"-?\d+(\.\d+)?", text)
    return None if found is None else float(found[0])
