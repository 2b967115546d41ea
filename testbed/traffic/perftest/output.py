"""What the programs print: perftest's header, tables and JSON, character for character (its 4.5 to 6 series)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.mrc.qp import QpAttributes
from testbed.traffic.perftest.options import DEVICE, Options, Tool

LINE = "-" * 87
WAITING = "\n".join(("", "*" * 36, "* Waiting for client to connect... *", "*" * 36))
NO_PEAK = " WARNING: BW peak won't be measured in this run."
#: perftest's MB is 2^20 bytes, its Gb 10^9 bits.
MEGABYTE = 1 << 20
GIGABIT_BYTES = 125_000_000
#: Below this average, in Gb/s, more digits are printed.
_FEW_GIGABITS = 0.1

_TITLES = {Tool.WRITE_BW: "RDMA_Write {}BW Test", Tool.WRITE_LAT: "RDMA_Write {}Latency Test"}
_BANDWIDTH = " #bytes     #iterations    BW peak[{0}/sec]    BW average[{0}/sec]   MsgRate[Mpps]"
_LATENCY = (
    " #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]"
    "   99% percentile[usec]   99.9% percentile[usec] "
)
_LATENCY_DURATION = " #bytes        #iterations       t_avg[usec]    tps average"


@dataclass(frozen=True)
class Bandwidth:
    """One direction's result.

    Attributes:
        size: bytes of a message.
        iterations: messages counted, of all queue pairs together.
        peak: bytes/s; 0 where it was not looked for.
        average: bytes/s.
        rate: messages/s.
    """

    size: int
    iterations: int
    peak: float
    average: float
    rate: float

    def __add__(self, other: Bandwidth) -> Bandwidth:
        """Both directions together: rates add up; iterations stay one direction's, as perftest prints them."""
        return Bandwidth(
            self.size,
            self.iterations,
            self.peak + other.peak,
            self.average + other.average,
            self.rate + other.rate,
        )


@dataclass(frozen=True)
class Latency:
    """Times of a ping-pong, one way: half the round trip. Microseconds.

    Attributes:
        size: bytes of a message.
        iterations: round trips.
        least, most, typical, average, deviation, p99, p999: as perftest takes them from the sorted samples.
    """

    size: int
    iterations: int
    least: float
    most: float
    typical: float
    average: float
    deviation: float
    p99: float
    p999: float


@dataclass(frozen=True)
class LatencyByDuration:
    """The mean time of a ping-pong, one way, in microseconds, and round trips per second."""

    size: int
    iterations: int
    average: float
    per_second: float


Report = Bandwidth | Latency | LatencyByDuration


def title(options: Options) -> str:
    """What the test is called."""
    return _TITLES[options.tool].format("Bidirectional " if options.bidirectional else "")


def header(options: Options, mtu: int, exchange: str) -> list[str]:
    """The block that tells what is run, from rule to rule.

    Args:
        options: the run's.
        mtu: path MTU of the queue pairs.
        exchange: how the two ends exchanged their attributes.
    """
    bandwidth = options.tool is Tool.WRITE_BW
    sends = options.server is not None or options.bidirectional or not bandwidth
    return [
        LINE,
        " " * 20 + title(options),
        f" Dual-port       : OFF\t\tDevice         : {DEVICE}",
        f" Number of qps   : {options.qps}\t\tTransport type : MRC",
        " Connection type : RC\t\tUsing SRQ      : OFF",
        *([f" TX depth        : {options.tx_depth}"] if sends else []),
        *([" CQ Moderation   : 1"] if bandwidth else []),
        f" Mtu             : {mtu}[B]",
        " Link type       : Ethernet",
        " Max inline data : 0[B]",
        " rdma_cm QPs\t : OFF",
        f" Data ex. method : {exchange}",
        LINE,
    ]


def address(side: str, attributes: QpAttributes) -> list[str]:
    """Two lines that name one end of a queue pair; ``side``: ``local`` or ``remote``."""
    region = attributes.regions[0]
    gid = ":".join(f"{byte:02d}" for byte in ipaddress.IPv6Address(attributes.address).packed)
    numbers = f"QPN {attributes.qpn:#06x} PSN {attributes.psn:#06x} RKey {region.rkey:#08x} VAddr {region.va:#016x}"
    return [f" {side} address: LID 0000 {numbers}", f" GID: {gid}"]


def table_head(options: Options) -> list[str]:
    """A rule, and the columns' names."""
    if options.tool is Tool.WRITE_BW:
        return [LINE, _BANDWIDTH.format("Gb" if options.gigabits else "MB")]
    return [LINE, _LATENCY if options.duration_s is None else _LATENCY_DURATION]


def row(report: Report, *, gigabits: bool = False) -> str:
    """A line of the table."""
    size = f" {report.size:<7d}"
    if isinstance(report, Bandwidth):
        unit = GIGABIT_BYTES if gigabits else MEGABYTE
        peak, average, rate = report.peak / unit, report.average / unit, f"{report.rate / 1e6:<7.6f}"
        if gigabits and average < _FEW_GIGABITS:
            return f"{size}    {report.iterations}           {peak:<7.6f}            {average:<7.6f}            {rate}"
        return f"{size}    {report.iterations:<10d}       {peak:<7.2f}            {average:<7.2f}\t\t   {rate}"
    if isinstance(report, Latency):
        return (
            f"{size} {report.iterations}          {report.least:<7.2f}        {report.most:<7.2f}      "
            f"{report.typical:<7.2f}  \t       {report.average:<7.2f}     \t{report.deviation:<7.2f}\t\t"
            f"{report.p99:<7.2f} \t\t{report.p999:<7.2f}"
        )
    return f"{size}       {report.iterations}            {report.average:<7.2f}        {report.per_second:<7.2f}"


def histogram(latencies: Sequence[float]) -> list[str]:
    """Every latency, numbered, in microseconds."""
    return ["#, usec", *(f"{number}, {value:g}" for number, value in enumerate(latencies, 1))]


def as_json(options: Options, mtu: int, report: Report) -> str:
    """The report as perftest's JSON has it, for the last size that was run."""
    info = {
        "test": title(options).replace(" ", "_"),
        "Dual_port": "OFF",
        "Device": DEVICE,
        "Number_of_qps": options.qps,
        "Transport_type": "MRC",
        "Connection_type": "RC",
        "Using_SRQ": "OFF",
        "TX_depth": options.tx_depth,
        "Mtu": mtu,
        "Link_type": "Ethernet",
        "Max_inline_data": 0,
        "rdma_cm_QPs": "OFF",
    }
    return json.dumps({"test_info": info, "results": _fields(report, options.gigabits)}, indent=0) + "\n"


def _fields(report: Report, gigabits: bool) -> Mapping[str, float]:
    known: dict[str, float] = {"MsgSize": report.size, "n_iterations": report.iterations}
    if isinstance(report, Bandwidth):
        unit = GIGABIT_BYTES if gigabits else MEGABYTE
        digits = 6 if gigabits and report.average / unit < _FEW_GIGABITS else 2
        return known | {
            "BW_peak": round(report.peak / unit, digits),
            "BW_average": round(report.average / unit, digits),
            "MsgRate": round(report.rate / 1e6, 6),
        }
    if isinstance(report, LatencyByDuration):
        return known | {"t_avg": round(report.average, 2), "tps_average": round(report.per_second, 2)}
    times = {
        "t_min": report.least,
        "t_max": report.most,
        "t_typical": report.typical,
        "t_avg": report.average,
        "t_stdev": report.deviation,
        "percentile_99": report.p99,
        "percentile_99.9": report.p999,
    }
    return known | {name: round(value, 2) for name, value in times.items()}
