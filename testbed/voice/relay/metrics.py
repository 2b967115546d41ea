"""A relay's figures for Prometheus, and over HTTP. A process of its own serves them, off the way of datagrams."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from testbed.errors import UsageError
from testbed.voice.addresses import Address
from testbed.voice.relay.snapshot import Source

_PATIENCE_S: Final = 2.0
_PREFIX: Final = "testbed_relay"


class RelayCollector(Collector):
    """Reads the shared counters when it is asked."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """All metrics of a relay."""
        taken = self._source.take()
        yield _counter("packets", "Datagrams received.", ("direction", "kind"), _nested(taken["received"]))
        yield _counter("forwarded_packets", "Datagrams sent on.", ("direction",), _flat(taken["forwarded"]))
        yield _counter(
            "bytes",
            "Bytes of datagrams; stage: received or forwarded.",
            ("direction", "stage"),
            _nested(taken["bytes"]),
        )
        yield _counter("dropped", "Datagrams that went no further.", ("reason",), _flat(taken["dropped"]))
        workers = taken["workers"]
        yield _counter(
            "socket_dropped",
            "Datagrams that the kernel dropped for want of room in a socket.",
            ("worker", "socket"),
            [
                ((str(each["worker"]), name), value)
                for each in workers
                for name, value in each["socket_dropped"].items()
            ],
        )
        yield _gauge("sessions", "Clients in the session map.", ("worker",), _of(workers, "sessions"))
        yield _gauge("held_packets", "Datagrams that wait for the store.", ("worker",), _of(workers, "held"))
        yield _gauge("worker_up", "1 where the worker went through its loop within a second.", ("worker",),
                     _of(workers, "running"))  # fmt: skip
        yield _counter("worker_starts", "Starts of a worker.", ("worker",), _of(workers, "starts"))
        yield _counter(
            "session_changes", "Sessions made, expired, evicted, adopted.", ("change",), _flat(taken["sessions"])
        )
        store = taken["store"]
        yield _gauge("store_up", "1 where the store answers.", (), [((), float(store["state"] == "up"))])
        for name, text in (
            ("written", "Sessions written to the store."),
            ("dropped", "Sessions that were not written, because the store or its queue did not take them."),
            ("lookups", "Clients looked for in the store."),
            ("found", "Clients found in the store."),
            ("connects", "Connections made to the store."),
        ):
            yield _counter(f"store_{name}", text, (), [((), store[name])])


class Exporter:
    """HTTP on one address: ``/metrics``."""

    def __init__(self, listen: Address, source: Source) -> None:
        """Listen. Raises UsageError."""
        registry = CollectorRegistry()
        registry.register(RelayCollector(source))
        handler = type("Handler", (_Handler,), {"registry": registry})
        try:
            self._server = _Server(listen.pair, handler)
        except OSError as error:
            where, found = f"--metrics {listen}", error.strerror or ""
            raise UsageError("the address cannot be bound", where=where, found=found) from None

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address.of(*self._server.server_address[:2])  # type: ignore[arg-type]

    def serve(self) -> None:
        """Answer until killed."""
        os.nice(10)
        self._server.serve_forever()

    def close(self) -> None:
        """Close the socket."""
        self._server.server_close()


class _Server(HTTPServer):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer's own, which asks the resolver for a name of the machine.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "relay", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        body = generate_latest(self.registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own
        pass


Samples = list[tuple[tuple[str, ...], float]]


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _flat(values: dict[str, int]) -> Samples:
    return [((name,), value) for name, value in values.items()]


def _nested(values: dict[str, dict[str, int]]) -> Samples:
    return [((outer, inner), value) for outer, of in values.items() for inner, value in of.items()]


def _of(workers: list[dict[str, Any]], name: str) -> Samples:
    return [((str(each["worker"]),), float(each[name])) for each in workers]
