"""iperf3 as a workload: the plain baseline, TCP or UDP between hosts, each flow over one path."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from testbed.addressing import Path
from testbed.errors import UnsupportedError, UsageError, nearest
from testbed.fabric.protocols import Fabric
from testbed.pressure import Pressure
from testbed.record import Figure
from testbed.traffic.exclusive import measuring
from testbed.traffic.iperf3_agent import AgentPlan, Protocol
from testbed.traffic.iperf3_result import FlowResult, totals
from testbed.traffic.iperf3_run import FlowPlan, Iperf3Run
from testbed.traffic.pairs import Pair

#: What ``iperf3 --udp`` sends when it is not told otherwise, bit/s.
UDP_DEFAULT_RATE = 1e6

_FIRST_PORT = 5201
_TCP_BLOCK_BYTES = 128 * 1024
_UDP_OVER_IPV6_HEADERS = 48
_SHORTEST_INTERVAL_S = 0.1
_PROTOCOLS: tuple[Protocol, ...] = ("tcp", "udp")


@dataclass(frozen=True)
class Iperf3Outcome:
    """What a finished run came to.

    Attributes:
        flows: one for each pair, in their order.
        figures: of every flow, then of all together.
        pressure: what the machine had left meanwhile.
    """

    flows: tuple[FlowResult, ...]
    figures: tuple[Figure, ...]
    pressure: Pressure


class Iperf3Load:
    """An iperf3 workload on a fabric; start it with :meth:`running`.

    Args:
        fabric: where.
        pairs: (source host, destination host), each a flow with a server of its own.
        protocol: ``tcp`` or ``udp``.
        rate: bit/s of payload of each flow, all its streams together; None: TCP as fast as it goes, UDP 1 Mbit/s as
            iperf3 has it.
        duration_s: how long to send; iperf3 takes whole seconds.
        streams: parallel streams of each flow, all on its path.
        evs: pair → EV; a pair left out takes one of its EVs, the flows one after the other, so that they spread. The
            way back of a flow takes the same EV where it is not a flow itself.
        interval_s: length of the reported intervals, at least 0.1.
        patience_s: how long connecting may take, and finishing beyond ``duration_s``.

    Raises UsageError for what cannot be, LabError for unknown hosts and EVs that are no paths.
    """

    def __init__(
        self,
        fabric: Fabric,
        pairs: Sequence[Pair],
        *,
        protocol: Protocol = "tcp",
        rate: float | None = None,
        duration_s: int = 10,
        streams: int = 1,
        evs: Mapping[Pair, int] | None = None,
        interval_s: float = _SHORTEST_INTERVAL_S,
        patience_s: float = 10.0,
    ) -> None:
        _check(protocol, rate, duration_s, streams, interval_s, patience_s)
        self._fabric = fabric
        self._protocol: Protocol = protocol
        self._rate = UDP_DEFAULT_RATE if rate is None and protocol == "udp" else rate or 0.0
        self._duration_s = int(duration_s)
        self._streams = streams
        self._interval_s = interval_s
        self._patience_s = patience_s
        self.pairs = tuple(pairs)
        chosen = evs or {}
        strangers = [pair for pair in chosen if pair not in self.pairs]
        if strangers:
            raise UsageError(
                "an EV is given for a pair that is no flow of this workload",
                found=f"{strangers[0][0]}>{strangers[0][1]}",
                expected=", ".join(self.flows),
            )
        self.evs = {pair: chosen.get(pair, self._spread(number)) for number, pair in enumerate(self.pairs)}
        self.paths = [fabric.addresses.path(*pair, ev) for pair, ev in self.evs.items()]
        self._run: Iperf3Run | None = None
        self._outcome: Iperf3Outcome | None = None

    def _spread(self, number: int) -> int:
        usable = self._fabric.addresses.evs(*self.pairs[number])
        if not usable:
            raise UsageError("this pair has no path", found=self.flows[number])
        return usable[number % len(usable)]

    @cached_property
    def flows(self) -> tuple[str, ...]:
        """Names by flow number, ``h0>h5``."""
        return tuple(f"{src}>{dst}" for src, dst in self.pairs)

    @property
    def outcome(self) -> Iperf3Outcome:
        """What the finished run came to. Raises UsageError before that."""
        if self._outcome is None:
            raise UsageError("iperf3 has not finished yet", remedy="read it after `with flows.running():`")
        return self._outcome

    @contextlib.contextmanager
    def running(self) -> Iterator[Iperf3Load]:
        """Send while the block runs, and on until ``duration_s`` is over.

        The block is entered once every stream of every flow has delivered data. If it raises, everything is ended at
        once and nothing collected.

        One measurement at a time per machine: waits for the others. Raises UnsupportedError where iperf3 is missing,
        InfrastructureError when a flow cannot connect or does not end as it should.
        """
        reason = self._fabric.capabilities.reason_against("iperf3")
        if reason is not None:
            raise UnsupportedError("this fabric cannot run iperf3", found=reason)
        with (
            measuring(),
            self._fabric.ordinary_paths(self.evs) as ordinary,
            Iperf3Run(self._fabric, self._plans(ordinary.mtu), self._patience_s) as run,
        ):
            run.start()
            self._run = run
            try:
                yield self
            finally:
                self._run = None
            flows, pressure = run.finish()
            figures = [figure for flow in flows for figure in flow.figures]
            self._outcome = Iperf3Outcome(tuple(flows), (*figures, *totals(flows)), pressure)

    def go_on_for(self, seconds: float) -> None:
        """Let it send for a while. Raises UsageError while the workload is not running, or for longer than it will."""
        if self._run is None:
            raise UsageError("iperf3 is not running", remedy="wait inside `with flows.running():`")
        if seconds > self._run.remaining_s:
            raise UsageError(
                "iperf3 ends before that",
                found=f"{seconds} s",
                expected=f"at most the {max(0.0, self._run.remaining_s):.1f} s that are left",
                remedy=f"raise duration_s, which is {self._duration_s}",
            )
        time.sleep(seconds)  # Time passing is what is asked for.

    def _plans(self, mtu: int) -> list[FlowPlan]:
        return [self._plan(number, src, dst, path, mtu) for number, ((src, dst), path) in enumerate(self._routes())]

    def _routes(self) -> list[tuple[Pair, Path]]:
        return list(zip(self.pairs, self.paths, strict=True))

    def _plan(self, number: int, src: str, dst: str, path: Path, mtu: int) -> FlowPlan:
        def end(role: str) -> AgentPlan:
            return AgentPlan(
                role="server" if role == "server" else "client",
                address=str(self._fabric.addresses.nic_address(dst)),
                port=_FIRST_PORT + number,
                netns_fd=None,
                protocol=self._protocol,
                rate=round(self._rate / self._streams),
                streams=self._streams,
                duration_s=self._duration_s,
                block_bytes=_TCP_BLOCK_BYTES if self._protocol == "tcp" else mtu - _UDP_OVER_IPV6_HEADERS,
                interval_s=self._interval_s,
                connect_s=self._patience_s,
            )

        return FlowPlan(src, dst, end("server"), end("client"), " ".join(path.nodes))


def _check(
    protocol: str, rate: float | None, duration_s: float, streams: int, interval_s: float, patience_s: float
) -> None:
    if protocol not in _PROTOCOLS:
        raise UsageError(
            f"iperf3 has no protocol {protocol!r} here",
            expected=" or ".join(_PROTOCOLS),
            nearest=nearest(protocol, _PROTOCOLS),
        )
    wrong = [
        (rate is not None and rate <= 0, "rate", f"{rate} bit/s", "more than 0, or None"),
        (duration_s < 1 or duration_s != int(duration_s), "duration_s", f"{duration_s}", "whole seconds, at least 1"),
        (not 1 <= streams <= 128, "streams", f"{streams}", "1 to 128"),
        (not _SHORTEST_INTERVAL_S <= interval_s <= 60, "interval_s", f"{interval_s}", "0.1 to 60"),
        (patience_s <= 0, "patience_s", f"{patience_s}", "more than 0"),
    ]
    for bad, name, found, expected in wrong:
        if bad:
            raise UsageError(f"iperf3 cannot run with this {name}", found=found, expected=expected)
