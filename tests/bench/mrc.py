"""How near the software NIC comes to a bare C pair that places the same packets, and how far ahead of scapy it is."""

from __future__ import annotations

import os
from typing import Any

from tests.bench import child
from tests.bench.figures import Figure, Limit, Section, ratios
from tests.bench.load import Share
from tests.bench.options import Options

_LAB = "reference"
_PAYLOAD_BITS = 4096 * 8
_ENDS = {"send": "sender", "receive": "receiver"}


def measure(options: Options) -> Section:
    """Let the NIC, the C pair and scapy take turns on one fabric."""
    seconds, rounds = (0.5, 2) if options.quick else (2.0, options.pairs)
    found: dict[str, Any] = child.run_module(
        "tests.bench.mrc_once", f"--lab={_LAB}", f"--seconds={seconds}", f"--rounds={rounds}"
    )
    about = f"lab {_LAB}, unshaped, hosts on different T0s, {found['evs']} EVs, WRITEs of 4,096 bytes a packet"
    figures = (*_goodput(found), *_scapy(found), *_cost(found), *_stages(found))
    return Section("mrc", about, figures, _notes(found, seconds))


def _goodput(found: dict[str, Any]) -> tuple[Figure, ...]:
    runs, shares = found["unlimited"], _shares(found, "unlimited")
    ours, verified = _column(runs["ours"], "pps"), _column(runs["verified"], "pps")
    limit = Limit(">=", 0.6)
    definition = "goodput, within each round, to the faster of the C pair's receivers; aim: 0.8"
    figures = [
        Figure("NIC", "packets/s", "placed, and completed at the sender: one QP, messages of 1 MiB", ours),
        Figure("NIC, verified", "packets/s", "the same, each message compared byte for byte at the receiver", verified),
        Figure(
            "NIC, goodput", "Mbit/s", "payload only, not verified", tuple(one * _PAYLOAD_BITS / 1e6 for one in ours)
        ),
    ]
    if "ring" not in runs:
        lacking = "no C compiler (cc), or no zlib.h: there is nothing to compare with"
        return (*figures, Figure("NIC / C", "ratio", definition, limit=limit, not_run=lacking))
    ring, raw = _column(runs["ring"], "pps"), _column(runs["raw"], "pps")
    best = tuple(map(max, ring, raw))
    lost = tuple(float(a["lost"] + b["lost"]) for a, b in zip(runs["ring"], runs["raw"], strict=True))
    faster = [a if a["pps"] >= b["pps"] else b for a, b in zip(runs["ring"], runs["raw"], strict=True)]
    bound = ratios(_column(faster, "send_us"), _column(runs["ours"], "send_us"))
    bound_definition = "sender's time of C to that of the NIC, a packet: what the ratio is where senders are the limit"
    return (
        *figures,
        Figure("C, packet ring", "packets/s", "placed, with the right ICRC", ring),
        Figure("C, recvmmsg", "packets/s", "placed, with the right ICRC", raw),
        Figure("C, lost", "packets", "sent and not placed: they count neither way", lost),
        Figure("NIC / C", "ratio", definition, ratios(ours, best), limit, shares, True, _one_processor()),
        Figure("by sender's time", "ratio", bound_definition, bound, None, shares, True),
        Figure("NIC, verified / C", "ratio", "goodput, verified", ratios(verified, best), None, shares, True),
    )


def _scapy(found: dict[str, Any]) -> tuple[Figure, ...]:
    runs, shares = found["unlimited"], _shares(found, "unlimited")
    ours, scapy = _column(runs["ours"], "pps"), _column(runs["scapy"], "pps")
    return (
        Figure("scapy", "packets/s", "sent, each built of its layers: one raw socket, nobody receiving", scapy),
        Figure("NIC / scapy", "ratio", "within each round", ratios(ours, scapy), Limit(">=", 30), shares, True),
    )


def _cost(found: dict[str, Any]) -> tuple[Figure, ...]:
    if "paced" not in found:
        return ()
    runs, shares = found["paced"], _shares(found, "paced")
    figures = []
    for who, name in (("bare", "C"), ("ours", "NIC")):
        figures.append(Figure(f"{name} at half rate", "packets/s", "placed", _column(runs[who], "pps")))
        for end, called in _ENDS.items():
            definition = "user and system time per placed packet, at half rate"
            figures.append(Figure(f"{name}, {called}'s time", "µs", definition, _column(runs[who], f"{end}_us")))
    both = {who: _summed(runs[who]) for who in ("bare", "ours")}
    definition = "within each round, at half rate: both ends, and softirqs outside of them"
    return (*figures, Figure("time, NIC / C", "ratio", definition, ratios(both["ours"], both["bare"]), None, shares))


def _stages(found: dict[str, Any]) -> tuple[Figure, ...]:
    """Stages that cost anything, of the runs without a limit of rate."""
    runs = found["unlimited"]["ours"]
    columns = {
        f"{_ENDS[end]}: {stage}": tuple(run["stages"][end][stage] for run in runs)
        for end in _ENDS
        for stage in runs[0]["stages"][end]
    }
    return tuple(Figure(name, "µs", "", column) for name, column in columns.items() if max(column) >= 0.005)


def _notes(found: dict[str, Any], seconds: float) -> tuple[str, ...]:
    crc, runs = found["crc"], found["unlimited"]
    verified = sum(run["verified"] for run in runs["verified"])
    notes = [
        (
            f"{seconds:g} s a run; {verified:,} messages verified, none different; "
            f"{sum(run['retransmits'] for run in runs['ours']):,} packets sent again"
        ),
        f"CRC-32 of both: {crc['both']}; here the NIC's is otherwise {crc['ours']}, C has {', '.join(crc['bare'])}",
        "stages: processor time per placed packet, without a limit of rate; testbed.mrc.datapath.stages defines them",
        "veth forwards in the sender's context: its processor time holds every hop's",
    ]
    if "paced" in found:
        notes[1:1] = [
            (
                "the C pair has no windows, acknowledgements or recovery; a shared page keeps its sender from "
                "overrunning its receiver, and costs nothing"
            ),
            (
                f"half rate: {found['offered']:,.0f} packets/s offered to both, a message of 256 packets when due: "
                f"half of what the slower one reached; the C pair there with its faster receiver, {found['receiver']}"
            ),
        ]
        if found["softirqs_apart"] is None:
            notes.append("this kernel does not say whether softirqs count as processes' time; taken that they do")
        elif found["softirqs_apart"]:
            notes.append("this kernel counts softirqs apart: all of the machine's are in the ratio of time")
    return tuple(notes)


def _summed(runs: list[dict[str, float]]) -> tuple[float, ...]:
    return tuple(run["send_us"] + run["receive_us"] + run["beyond_us"] for run in runs)


def _shares(found: dict[str, Any], which: str) -> tuple[Share, ...]:
    return tuple(Share(**share) for share in found["shares"][which])


def _column(runs: list[dict[str, float]], name: str) -> tuple[float, ...]:
    return tuple(float(run[name]) for run in runs)


def _one_processor() -> str:
    return "" if len(os.sched_getaffinity(0)) > 1 else "sender and receiver share one processor"
