"""A Prometheus endpoint of this process while it runs. A scrape reads counters; nothing is on the way of a packet.

Label sets are bounded: suite, lab, what it is made of, workload, plane, state, kind of fault, role. No flows, no hosts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from http.server import HTTPServer
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from testbed.errors import UsageError
from testbed.live.counting import Count
from testbed.live.views import LIVE, Live
from testbed.record import Figure

PREFIX: Final = "mrc_testbed"
#: Seconds, as of the metrics of a whole run.
FAILOVER_BUCKETS: Final = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)
LOOPBACK: Final = "127.0.0.1"
_PLANES: Final = (
    (Count.SENT, "plane_sent_packets", "Packets that senders offered to the plane."),
    (Count.RECEIVED, "plane_received_packets", "Packets that arrived from the plane, each once."),
    (Count.LOST, "plane_lost_packets", "Packets that did not arrive within the waiting time."),
    (Count.REORDERED, "plane_reordered_packets", "Packets that arrived after a later one of their flow (RFC 4737)."),
    (Count.DUPLICATED, "plane_duplicated_packets", "Second and later arrivals."),
    (Count.BYTES, "plane_goodput_bytes", "Payload that arrived for the first time."),
)


class _Running(Collector):
    """What runs, read anew for each scrape."""

    def __init__(self, live: Live, suite: str, realised: str) -> None:
        self._live, self._suite, self._realised = live, suite, realised

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        running, totals = self._live.totals()
        labels = ("suite", "realised", "lab", "workload", "plane")
        for count, name, text in _PLANES:
            family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
            for (workload, lab), table in totals.items():
                for plane, value in enumerate(table[:, count].tolist()):
                    family.add_metric([self._suite, self._realised, lab, workload, str(plane)], value)
            yield family
        evs = GaugeMetricFamily(f"{PREFIX}_evs", "Entropy values of senders by state.", labels=(*labels, "state"))
        roles = ("suite", "workload", "role", "state")
        processes = GaugeMetricFamily(f"{PREFIX}_processes", "Processes of the workloads that run.", labels=roles)
        overflow = GaugeMetricFamily(
            f"{PREFIX}_unrecorded_packets",
            "Packets that found no room to be recorded: above 0, counts of planes stand still.",
            labels=("suite", "workload"),
        )
        for each in running:
            for (plane, state), number in sorted(each.evs.items()):
                evs.add_metric([self._suite, self._realised, each.lab, each.workload, str(plane), state], number)
            for (role, runs), number in sorted(each.processes.items()):
                processes.add_metric([self._suite, each.workload, role, "running" if runs else "ended"], number)
            overflow.add_metric([self._suite, each.workload], each.overflow)
        yield from (evs, processes, overflow)
        faults = GaugeMetricFamily(f"{PREFIX}_faults_active", "Faults in force by kind.", labels=("suite", "kind"))
        for kind, number in sorted(self._live.faults_by_kind().items()):
            faults.add_metric([self._suite, kind], number)
        yield faults
        workloads = GaugeMetricFamily(f"{PREFIX}_workloads", "Workloads that run.", labels=("suite",))
        workloads.add_metric([self._suite], len(running))
        yield workloads


class Exporter:
    """A running endpoint. Use as a context; leaving it closes the port.

    Attributes:
        url: what Prometheus scrapes.
    """

    def __init__(self, port: int, *, suite: str, realised: str = "netns", host: str = LOOPBACK) -> None:
        """Listen.

        Args:
            port: where; 0: any that is free.
            suite: what runs of this kind are called.
            realised: what the lab is made of.
            host: the address that is listened on.

        Raises:
            UsageError: the port is taken, or may not be used.

        """
        self.registry = CollectorRegistry()
        self.registry.register(_Running(LIVE, suite, realised))
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        self._labels = (suite, realised)
        self._failover = Histogram(
            f"{PREFIX}_failover_seconds",
            "Failover times measured since this process began.",
            ("suite", "lab", "realised"),
            buckets=FAILOVER_BUCKETS,
            registry=self.registry,
        )
        try:
            self._server: HTTPServer
            self._thread: threading.Thread
            self._server, self._thread = start_http_server(port, host, self.registry)
        except (OSError, OverflowError) as error:
            found = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(
                "metrics cannot be told there",
                where=f"{host}:{port}",
                found=found or str(error),
                remedy="another --metrics-port; 0 takes any that is free",
            ) from None
        LIVE.record()
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_address[1]}/metrics"

    def failovers(self, lab: str, figures: Iterable[Figure]) -> None:
        """Tell the failovers among figures of a finished workload."""
        suite, realised = self._labels
        for figure in figures:
            if (figure.name, figure.scope) == ("failover", "all") and figure.value is not None:
                self._failover.labels(suite, lab, realised).observe(figure.value)

    def close(self) -> None:
        """Stop listening."""
        LIVE.record_no_more()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
