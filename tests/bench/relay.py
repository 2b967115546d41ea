"""How near the relay comes to a bare C forwarder, and what it adds."""

from __future__ import annotations

from typing import Any

from tests.bench import child
from tests.bench.figures import Figure, Limit, Section, ratios
from tests.bench.load import Share
from tests.bench.options import Options

_NAMES = {"none": "no relay", "c": "C", "relay": "relay"}


def measure(options: Options) -> Section:
    """Let the relay, the C forwarder and nothing take turns."""
    seconds, rounds, sessions = (0.5, 2, 1024) if options.quick else (2.0, options.pairs, 8192)
    found: dict[str, Any] = child.run_module(
        "tests.bench.relay_once", f"--seconds={seconds}", f"--rounds={rounds}", f"--sessions={sessions}"
    )
    about = f"{found['flows']} flows of 160-byte packets on the loopback, inward, one worker"
    if "lacking" in found:
        figure = Figure("relay / C", "ratio", "loss-free packets/s", limit=Limit(">=", 0.8), not_run=found["lacking"])
        return Section("relay", about, (figure,))
    figures = (
        *_rates(found),
        *_times(found),
        *_coturn(found),
        *_delays(found),
        *_workers(found),
        _memory(found, sessions),
    )
    return Section("relay", about, figures, _notes(found, seconds))


def _rates(found: dict[str, Any]) -> tuple[Figure, ...]:
    runs = found["full"]
    c, ours = _column(runs["c"], "pps"), _column(runs["relay"], "pps")
    lost = tuple(float(a["lost"] + b["lost"]) for a, b in zip(runs["c"], runs["relay"], strict=True))
    shared = "" if found["processors"] > 1 else "generator and forwarder share one processor"
    ratio = "loss-free packets/s, within each round: the relay looks each client up and adds the header"
    return (
        Figure("C", "packets/s", "a forwarder of recvmmsg and sendmmsg, 64 at a time", c),
        Figure("relay", "packets/s", "as many as a window of 384 under way lets through", ours),
        Figure("lost", "packets", "of both, in all runs without a limit of rate", lost, Limit("<=", 0, "worst")),
        Figure("relay / C", "ratio", ratio, ratios(ours, c), Limit(">=", 0.8), _shares(runs["relay"]), True, shared),
    )


def _times(found: dict[str, Any]) -> tuple[Figure, ...]:
    paced, batches = found["paced"], found["batches"]
    c, ours = _column(paced["c"], "us"), _column(paced["relay"], "us")
    full_c, full_ours = tuple(batches["c"]), tuple(batches["relay"])
    definition = "processor time per packet at equal rate, half of the slower's most"
    queued = "processor time per packet where 4,000 wait in the socket: whole batches"
    return (
        Figure("C's time", "µs", definition, c),
        Figure("relay's time", "µs", definition, ours),
        Figure("time, relay / C", "ratio", "within each round", ratios(ours, c), None, _shares(paced["relay"]), True),
        Figure("C's time, whole batches", "µs", queued, full_c),
        Figure("relay's time, whole batches", "µs", queued, full_ours),
        Figure("whole batches, C / relay", "ratio", "what the rates' ratio is where no generator is the limit",
               ratios(full_c, full_ours)),
    )  # fmt: skip


def _coturn(found: dict[str, Any]) -> tuple[Figure, ...]:
    rate = "loss-free packets/s within each round; coturn: ChannelData, one thread that relays"
    time = "processor time per packet at equal rate, within each round; coturn: all its threads"
    if found["coturn lacking"]:
        lacking = found["coturn lacking"]
        return tuple(
            Figure(name, "ratio", definition, limit=limit, not_run=lacking)
            for name, definition, limit in (
                ("relay / coturn", rate, Limit(">=", 1)),
                ("time, relay / coturn", time, None),
            )
        )
    full, paced = found["full"], found["paced"]
    lost = tuple(float(run["lost"]) for run in full["coturn"])
    theirs, ours = _column(full["coturn"], "pps"), _column(full["relay"], "pps")
    us, ours_us = _column(paced["coturn"], "us"), _column(paced["relay"], "us")
    return (
        Figure("coturn", "packets/s", "the same window", theirs),
        Figure("coturn, lost", "packets", "in its runs without a limit of rate", lost),
        Figure("relay / coturn", "ratio", rate, ratios(ours, theirs), Limit(">=", 1), _shares(full["coturn"]), True),
        Figure("coturn's time", "µs", "processor time per packet at equal rate", us),
        Figure("time, relay / coturn", "ratio", time, ratios(ours_us, us), None, _shares(paced["coturn"]), True),
    )


def _delays(found: dict[str, Any]) -> tuple[Figure, ...]:
    paced = found["paced"]
    definition = "median from the generator's stamp to the sink's, at the same rate"
    return tuple(
        Figure(f"delay, {name}", "µs", definition, _column(paced[which], "p50_us")) for which, name in _NAMES.items()
    )


def _workers(found: dict[str, Any]) -> tuple[Figure, ...]:
    limit = Limit(">=", 1.6)
    definition = "packets/s of two workers to those of one"
    if "workers" not in found:
        lacking = f"{found['processors']} processors: two workers and the generator need three"
        return (Figure("2 workers / 1", "ratio", definition, limit=limit, not_run=lacking),)
    two, one = (tuple(run[which] for run in found["workers"]) for which in ("2", "1"))
    return (Figure("2 workers / 1", "ratio", definition, ratios(two, one), limit, relative=True),)


def _memory(found: dict[str, Any], sessions: int) -> Figure:
    definition = f"memory of the worker (PSS) that came with {sessions:,} sessions, by their number"
    return Figure("memory of a session", "bytes", definition, tuple(found["memory"]))


def _notes(found: dict[str, Any], seconds: float) -> tuple[str, ...]:
    return (
        f"{seconds:g} s a run; paced runs at {found['rate']:,.0f} packets/s",
        "the generator sends bursts of 8 a flow by UDP_SEGMENT, and is its own sink",
        "p99 is not given: tails are the scheduler's here, C's too",
    )


def _shares(runs: list[dict[str, Any]]) -> tuple[Share, ...]:
    return tuple(Share(**run["share"]) for run in runs)


def _column(runs: list[dict[str, Any]], name: str) -> tuple[float, ...]:
    return tuple(float(run[name]) for run in runs)
