"""A transceiver's figures for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PREFIX: Final = "testbed_transceiver"
_STATES: Final = ("new", "connected")


def exposition(figures: dict[str, Any] | None, starts: int, refused: dict[int, int]) -> bytes:
    """The text for a scrape.

    Args:
        figures: of the process that has the calls; None where it does not answer: its metrics are left out.
        starts: how often that process was started.
        refused: offers that became no call, by HTTP status.
    """
    registry = CollectorRegistry()
    registry.register(_Once(list(_metrics(figures, starts, refused))))
    text: bytes = generate_latest(registry)
    return text


class _Once(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def _metrics(figures: dict[str, Any] | None, starts: int, refused: dict[int, int]) -> Iterator[Metric]:
    yield _gauge("up", "1 where the process that has the calls answers.", {"": float(figures is not None)})
    yield _counter("starts", "Starts of that process.", {"": starts})
    yield _counter("refused", "Offers that became no call, by HTTP status.", refused, "status")
    if figures is None:
        return
    yield _gauge("calls", "Calls there are.", {state: figures["now"][state] for state in _STATES}, "state")
    yield _gauge("playout_lag_seconds", "The longest of the jitter buffers' targets.",
                 {"": figures["now"]["playout_lag_s"]})  # fmt: skip
    yield _counter("packets", "Datagrams.", {"inward": figures["received"], "outward": figures["sent"]}, "direction")
    yield _counter(
        "bytes",
        "Bytes of datagrams, without the relay's headers.",
        {"inward": figures["received_bytes"], "outward": figures["sent_bytes"]},
        "direction",
    )
    yield _counter("dropped", "Datagrams that went no further.", figures["dropped"], "reason")
    yield _counter("checks", "Connectivity checks, by the code of the answer; 0: success.", figures["checks"], "code")
    yield _counter("call_changes", "Calls by what became of them.", figures["calls"], "change")
    yield _counter("moves", "Clients that went on from another address.", {"": figures["moves"]})
    yield _counter("audio_frames", "Frames, or packets, of calls that are over, by what became of them.",
                   figures["audio"], "fate")  # fmt: skip
    yield _counter("backend_dropped", "What did not pass between call and backend.", figures["backend_dropped"], "what")


def _counter(name: str, text: str, values: dict[Any, int], label: str = "") -> Metric:
    return _filled(CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=[label] if label else []), values)


def _gauge(name: str, text: str, values: dict[Any, float], label: str = "") -> Metric:
    return _filled(GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=[label] if label else []), values)


def _filled(family: Any, values: dict[Any, Any]) -> Metric:
    for value, count in values.items():
        family.add_metric([str(value)] if value != "" else [], count)
    made: Metric = family
    return made
