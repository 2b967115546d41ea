"""How near the probe sender comes to a bare C sendmmsg loop on the same path, and whether it loses anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench import child
from tests.bench.figures import Figure, Limit, Section, ratios
from tests.bench.load import Share
from tests.bench.options import Options

_SOURCE = Path(__file__).with_name("c") / "sendmmsg_probe.c"
_SIZE = 1000
#: Of the rate that was asked for.
_REACHED = 0.95


def measure(options: Options) -> Section:
    """Compile the loop, take turns."""
    about = f"two planes of three uSID switches, 128 EVs, packets of {_SIZE} bytes"
    compiler = shutil.which("cc")
    if compiler is None:
        lacking = "no C compiler (cc): there is nothing to compare with"
        figure = Figure("probes / C", "ratio", "", limit=Limit(">=", 0.85), not_run=lacking)
        return Section("probes", about, (figure,))
    packets, rounds = (20_000, 2) if options.quick else (100_000, options.pairs)
    with TemporaryDirectory() as directory:
        program = f"{directory}/sendmmsg_probe"
        subprocess.run([compiler, "-O2", "-Wall", "-o", program, str(_SOURCE)], check=True)
        found: dict[str, Any] = child.run_module(
            "tests.bench.probes_once",
            program,
            f"--size={_SIZE}",
            f"--packets={packets}",
            f"--rounds={rounds}",
            within=(*child.PRIVATE_ROOTLESS, "--fork", "--kill-child"),
        )
    figures = (*_unpaced(found), *_paced(found))
    return Section(
        "probes",
        about,
        figures,
        (
            f"{packets:,} packets a run; the faster of the C loop's two ways in each round is what the ratio is to",
            f"half of the C loop's rate here is {found['half_pps']:,.0f} packets/s",
            "veth forwards in the sender's context: its processor time holds every hop's",
        ),
    )


def _unpaced(found: dict[str, Any]) -> tuple[Figure, ...]:
    runs = found["unpaced"]
    shares = tuple(Share(**share) for share in found["shares"]["unpaced"])
    best = tuple(max(a["pps"], b["pps"]) for a, b in zip(runs["raw41"], runs["header"], strict=True))
    ours = _column(runs["probes"], "pps")
    return (
        Figure(
            "C, protocol 41", "packets/s", "sendmmsg of 64, the kernel writes the outer header", _pps(runs, "raw41")
        ),
        Figure(
            "C, whole header", "packets/s", "sendmmsg of 64, the packet holds its outer header", _pps(runs, "header")
        ),
        Figure("probes", "packets/s", "the probe sender, unpaced, its receiver beside it", ours),
        Figure(
            "probes / C",
            "ratio",
            "within each round",
            ratios(ours, best),
            Limit(">=", 0.85),
            shares,
            True,
            _one_processor(),
        ),
    )


def _paced(found: dict[str, Any]) -> tuple[Figure, ...]:
    runs = found["paced"]
    shares = tuple(Share(**share) for share in found["shares"]["paced"])
    cpu, c_cpu = (_column(runs[who], "cpu_us") for who in ("probes", "header"))
    probes = runs["probes"]
    # A receiver that was held up drops what the fabric delivered.
    drops = _column(probes, "receiver_drops")
    unknown = f"the receiver itself dropped {sum(drops):.0f}" if any(drops) else _one_processor()
    reached = min(_pps(runs, "probes")) / found["half_pps"]
    if reached < _REACHED:
        unknown = unknown or f"the sender reached {reached:.0%} of that rate"
    return (
        Figure("probes at half rate", "packets/s", "offered: half of the C loop's median", _pps(runs, "probes")),
        Figure("C, sender's time", "µs", "processor time per packet, at half rate", c_cpu),
        Figure("probes, sender's time", "µs", "processor time per packet, at half rate", cpu),
        Figure(
            "sender's time, probes / C", "ratio", "within each round, at half rate", ratios(cpu, c_cpu), None, shares
        ),
        Figure(
            "probes, both ends' time",
            "µs",
            "of sender and receiver per delivered packet",
            _column(probes, "both_cpu_us"),
        ),
        Figure(
            "lost",
            "packets",
            "sent and not received, at half rate",
            _column(probes, "lost"),
            Limit("<=", 0, "worst"),
            shares,
            unknown=unknown,
        ),
        Figure("behind", "ms", "the latest a packet left, at half rate", _column(probes, "behind_ms"), None, shares),
    )


def _one_processor() -> str:
    return "" if len(os.sched_getaffinity(0)) > 1 else "sender and receiver share one processor"


def _column(runs: list[dict[str, float]], name: str) -> tuple[float, ...]:
    return tuple(run[name] for run in runs)


def _pps(runs: dict[str, list[dict[str, float]]], who: str) -> tuple[float, ...]:
    return _column(runs[who], "pps")
