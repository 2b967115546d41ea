"""A run as metrics for Prometheus: a file for the node exporter's textfile collector, or a push to a Pushgateway.

Label sets are bounded: suite, lab, what it was made of, plane, verdict. Tests are not labels; their figures are in the
history.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest, pushadd_to_gateway

from testbed.errors import InfrastructureError, UsageError
from testbed.measure.atomic import write_atomically
from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from testbed_reports.sources import Source
from testbed_reports.sums import Sums

PREFIX: Final = "mrc_testbed"
#: Labs told apart; what runs on more of them is counted as ``other``.
MOST_LABS: Final = 16
_JOB: Final = "mrc_testbed"
#: Seconds. The emulated fabrics fail over in milliseconds, a rig in microseconds, a rebooting switch in seconds.
BUCKETS: Final = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)
_PATIENCE_S: Final = 10


class _Planes:
    """Sums per lab, realisation and plane."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)

    def add(self, lab: str, result: Result) -> None:
        for figure in result.figures:
            words = figure.scope.split()
            if len(words) == 2 and words[0] == "plane" and words[1].isdigit() and figure.value is not None:
                found = self.sums[lab, result.realised, words[1]]
                if figure.name in ("sent", "lost", "reordered"):
                    found[figure.name] += int(figure.value)
                elif figure.name == "loss_ratio":
                    found["offered"] += figure.samples
                elif figure.name == "reordered_ratio":
                    found["received"] += figure.samples
                elif figure.name == "goodput":
                    found["goodput"] += int(figure.value)
                    found["goodputs"] += 1


def metrics_of(source: Source) -> CollectorRegistry:
    """All metrics of a run."""
    run, registry = source.run, CollectorRegistry()
    suite = run.suite or "none"

    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, ("suite", *labels), registry=registry)

    gauge("run_started_timestamp_seconds", "When the run began.").labels(suite).set(run.created.timestamp())
    gauge("run_duration_seconds", "How long the run took.").labels(suite).set(run.duration_s)
    gauge("run_complete", "1 where the run came to its own end.").labels(suite).set(run.complete)
    tests = gauge("tests", "Tests of the run by verdict.", "realised", "verdict")
    for realised in sorted({test.realised for test in run.tests}):
        for verdict in Verdict:
            number = sum(test.realised == realised and test.verdict is verdict for test in run.tests)
            tests.labels(suite, realised, verdict.value).set(number)
    sums, planes = Sums(), _Planes()
    failover = Histogram(
        f"{PREFIX}_failover_seconds",
        "Failover times of the run's results.",
        ("suite", "lab", "realised"),
        buckets=BUCKETS,
        registry=registry,
    )
    labs: dict[str, str] = {}
    for test in run.tests:
        for result in source.results(test):
            if not isinstance(result, Result):
                sums.unreadable += 1
                continue
            sums.add(result)
            if test.lab not in labs:
                labs[test.lab] = test.lab if len(labs) < MOST_LABS else "other"
            planes.add(labs[test.lab], result)
            for figure in result.figures:
                if (figure.name, figure.scope) == ("failover", "all") and figure.value is not None:
                    failover.labels(suite, labs[test.lab], result.realised).observe(figure.value)
    whole = sums.whole
    gauge("unexplained_packets", "Packets that no hop accounts for.").labels(suite).set(whole.unexplained)
    uncounted = whole.uncounted + sums.unreadable
    gauge("results_without_ledger", "Results that do not know their unexplained packets.").labels(suite).set(uncounted)
    gauge("results", "Results of the run.").labels(suite).set(whole.results)
    gauge("unhealed_faults", "Faults that were not undone, or nobody knows.").labels(suite).set(
        whole.unhealed + whole.unclear
    )
    _plane_metrics(registry, suite, planes)
    return registry


def _plane_metrics(registry: CollectorRegistry, suite: str, planes: _Planes) -> None:
    labels = ("suite", "lab", "realised", "plane")
    loss = Gauge(f"{PREFIX}_plane_loss_ratio", "Packets lost over packets sent.", labels, registry=registry)
    late = Gauge(f"{PREFIX}_plane_reordered_ratio", "Packets reordered over received.", labels, registry=registry)
    good = Gauge(f"{PREFIX}_plane_goodput_bytes_per_second", "Mean over the results.", labels, registry=registry)
    for place, found in planes.sums.items():
        offered = found["offered"] or found["sent"]
        if offered:
            loss.labels(suite, *place).set(found["lost"] / offered)
        if found["received"]:
            late.labels(suite, *place).set(found["reordered"] / found["received"])
        if found["goodputs"]:
            # Prometheus counts in bytes, whatever networks do.
            good.labels(suite, *place).set(found["goodput"] / 8 / found["goodputs"])


def as_text(registry: CollectorRegistry) -> bytes:
    """The exposition format."""
    found: bytes = generate_latest(registry)
    return found


def write_textfile(registry: CollectorRegistry, path: Path) -> None:
    """Write for the textfile collector, in one step. Raises UsageError for a name it would not read."""
    if path.suffix != ".prom":
        raise UsageError("the textfile collector reads files named *.prom", where=str(path), found=path.name)
    content = as_text(registry)
    write_atomically(path, lambda file: file.write(content))


def push(registry: CollectorRegistry, url: str, runner: str) -> None:
    """Push to a Pushgateway, in the place of what this runner pushed before.

    Raises:
        UsageError: no http or https URL.
        InfrastructureError: it does not answer, or refuses.

    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("a Pushgateway has an http URL", where="--push", expected="http://host:9091")
    shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
    try:
        pushadd_to_gateway(url, _JOB, registry, {"instance": runner or os.uname().nodename}, timeout=_PATIENCE_S)
    except (URLError, OSError) as error:
        found = str(getattr(error, "reason", error))
        raise InfrastructureError("the Pushgateway cannot be reached", where=shown, found=found[:300]) from None
