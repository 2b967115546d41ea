"""What the tests of the qualification ask of finished transfers, each once."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pytest

from testbed.experiment.capacity import surviving_capacity
from testbed.fabric.protocols import Fabric
from testbed.faults.scope import Outage
from testbed.lab import Link, Tier
from testbed.measure.failover import placed_goodput
from testbed.measure.match import match
from testbed.pytest_plugin.outcomes import NOT_RUN
from testbed.pytest_plugin.showing import Showing
from testbed.record import Event
from testbed.traffic.mrc.transfers import MrcTransfers

#: What one processor carries of MRC over two switches, both ends included, with much to spare.
MOST_BPS = 1e9


def across(fabric: Fabric) -> tuple[str, str]:
    """A pair of hosts that needs a T1."""
    hosts = fabric.lab.topology.hosts
    return hosts[0], hosts[-1]


def uplinks(fabric: Fabric, host: str) -> list[Link]:
    """The links between a host and its T0s, by plane."""
    return [link for link in fabric.lab.topology.links if link.name.startswith(f"{host}:")]


def core_links(fabric: Fabric, flows: MrcTransfers) -> list[Link]:
    """The links between T0s and T1s that these transfers may use, in an order that is the same each time."""
    topology = fabric.lab.topology
    used = {link.name: link for path in flows.paths for link in path.links}
    ends = {name: {topology.tier(link.a.node), topology.tier(link.b.node)} for name, link in used.items()}
    return [used[name] for name in sorted(used) if ends[name] == {Tier.T0, Tier.T1}]


def nothing_failed(shown: Showing, flows: MrcTransfers) -> None:
    """Every message arrived, each byte of it right."""
    outcome = flows.outcome
    shown.at_least("messages", outcome.completed_messages, 1, "count")
    shown.equal("messages failed", outcome.failed_messages, 0, "count")
    shown.equal("messages wrong", sum(flow.mismatches for flow in outcome.messages), 0, "count")


def changes(flows: MrcTransfers, what: str, subject: str = "") -> list[Event]:
    """Changes of senders' EVs or ports, those of one subject if it is named."""
    return [one for one in flows.outcome.ev_changes if one.what == what and subject in ("", one.subject)]


def retired(flows: MrcTransfers, *causes: str) -> set[str]:
    """EVs that were retired, as ``flow h0>h3 ev 0x0012``; for these causes, if any are named."""
    return {one.subject for one in changes(flows, "assumed bad") if not causes or one.detail["cause"] in causes}


def line_rate(fabric: Fabric, flows: MrcTransfers, outages: tuple[Outage, ...] = ()) -> float | None:
    """What the paths that no outage touches can carry of payload, bit/s; None where links have no rate."""
    rate = fabric.lab.emulated_rate
    return None if rate is None else surviving_capacity(flows, outages) * rate * flows.payload_share


def goodput(flows: MrcTransfers, begin_ns: int, end_ns: int, window_ns: int) -> npt.NDArray[np.float64]:
    """Goodput of all flows together in windows, bit/s."""
    return placed_goodput(flows.outcome.arrivals, origin_ns=begin_ns, window_ns=window_ns, end_ns=end_ns).bps


def mean_goodput(flows: MrcTransfers, flow: int | None = None) -> float:
    """Payload placed for the first time, of a flow or of all, over the time in which anything was sent, bit/s."""
    outcome = flows.outcome
    arrivals, sent = outcome.arrivals, outcome.sent
    placed = (arrivals["flags"] & 4) != 0
    if flow is not None:
        placed &= arrivals["flow"] == flow
        sent = sent[sent["flow"] == flow]
    if len(sent) < 2:
        return 0.0
    duration_ns = int(sent["t_ns"].max() - sent["t_ns"].min())
    return float(arrivals["bytes"][placed].sum()) * 8e9 / max(duration_ns, 1)


def delays_s(flows: MrcTransfers, flow: int, after_s: float) -> npt.NDArray[np.float64]:
    """From a packet's sending to its arrival, of a flow's packets sent later than so long after the first, seconds."""
    matched = match(flows.outcome.samples)
    within = slice(int(matched.flow_starts[flow]), int(matched.flow_starts[flow + 1]))
    sent, arrived, lost = matched.t_sent[within], matched.t_arrived[within], matched.lost[within]
    counted = ~lost & (sent >= int(matched.t_sent.min(initial=0)) + after_s * 1e9)
    return np.asarray((arrived[counted] - sent[counted]) * 1e-9, np.float64)


def room_for_every_host(fabric: Fabric) -> None:
    """End a test as not run where every host at full rate is more than this machine's processors carry."""
    lab, processors = fabric.lab, len(os.sched_getaffinity(0))
    if lab.emulated_rate is None:
        return
    offered = lab.emulated_rate * lab.planes * len(lab.topology.hosts)
    if offered > MOST_BPS * processors:
        pytest.skip(
            f"{NOT_RUN}all hosts at full rate are {offered / 1e9:.3g} Gbit/s, {processors} processors carry some "
            f"{MOST_BPS * processors / 1e9:.3g}; remedy: a lab with a larger time scale, such as --lab paper-c"
        )
