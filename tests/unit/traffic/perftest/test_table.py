"""Reading tables: ours, and real perftest's in the forms its releases print."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import InfrastructureError
from testbed.traffic.perftest import output
from testbed.traffic.perftest.options import Options, Tool
from testbed.traffic.perftest.output import Bandwidth
from testbed.traffic.perftest.table import DEFINITIONS, read_table

METRICS = Path(__file__).resolve().parents[4] / "docs" / "metrics.md"
RULE = "-" * 87

IB_WRITE_BW = f"""\
 WARNING: BW peak won't be measured in this run.
{RULE}
                    RDMA_Write BW Test
 Dual-port       : OFF\t\tDevice         : mlx5_0
 Number of qps   : 1\t\tTransport type : IB
 Connection type : RC\t\tUsing SRQ      : OFF
 PCIe relax order: ON
 ibv_wr* API     : ON
 TX depth        : 128
 CQ Moderation   : 1
 Mtu             : 4096[B]
 Link type       : Ethernet
 GID index       : 3
 Max inline data : 0[B]
 rdma_cm QPs\t : OFF
 Data ex. method : Ethernet
{RULE}
 local address: LID 0000 QPN 0x0108 PSN 0x63ad7d RKey 0x17eedf VAddr 0x007f760c947000
 GID: 00:00:00:00:00:00:00:00:00:00:255:255:192:00:02:05
 remote address: LID 0000 QPN 0x0076 PSN 0xf3810c RKey 0x201600 VAddr 0x007fbb4c981000
 GID: 00:00:00:00:00:00:00:00:00:00:255:255:192:00:02:04
{RULE}
 #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
Conflicting CPU frequency values detected: 2200.000000 != 3400.000000. CPU Frequency is not max.
 65536      664644           0.00               11636.41\t\t   0.186183
{RULE}
"""

TIMES = "t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]"
IB_WRITE_LAT = f"""\
{RULE}
                    RDMA_Write Latency Test
{RULE}
 #bytes #iterations    {TIMES}   99% percentile[usec]   99.9% percentile[usec]\x20
 2       1000          1.42           1.93         1.47     \t       1.48        \t0.05   \t\t1.57    \t\t1.93  \x20
{RULE}
"""

IB_WRITE_BW_ALL = f"""\
 #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]    CPU_Util[%]
 2          5000           0.045444            0.045291            2.830684\t    3.21
 16         5000             0.36               0.36   \t\t   2.838234\t    3.20
{RULE}
 8          1                9.99               9.99   \t\t   9.000000\t    3.20
"""


def test_a_bandwidth_run_by_duration_has_no_peak() -> None:
    (row,) = read_table(IB_WRITE_BW)
    peak, average, messages = row.figures("flow h0>h3")
    assert (row.size, row.iterations) == (65536, 664644)
    assert (peak.value, peak.resolution) == (None, None)
    assert "not looked for" in peak.note
    assert average.value == pytest.approx(11636.41 * 8 * 2**20)
    assert average.resolution == pytest.approx(0.01 * 8 * 2**20)
    assert messages.value == pytest.approx(186_183)
    assert messages.samples == 664_644


def test_latencies_are_seconds() -> None:
    (row,) = read_table(IB_WRITE_LAT)
    figures = {figure.name: figure.value for figure in row.figures("")}
    assert figures == pytest.approx(
        {
            "write_lat_min": 1.42e-6,
            "write_lat_max": 1.93e-6,
            "write_lat_typical": 1.47e-6,
            "write_lat_average": 1.48e-6,
            "write_lat_stdev": 0.05e-6,
            "write_lat_p99": 1.57e-6,
            "write_lat_p999": 1.93e-6,
        }
    )


def test_every_size_has_a_row_up_to_the_rule_and_gigabits_their_digits() -> None:
    rows = read_table(IB_WRITE_BW_ALL)
    assert [row.size for row in rows] == [2, 16]
    assert [row.values["write_bw_average"] for row in rows] == pytest.approx([45_291_000, 360_000_000])
    assert [row.resolutions["write_bw_average"] for row in rows] == pytest.approx([1000, 10_000_000])


def test_latency_by_duration() -> None:
    head = " #bytes        #iterations       t_avg[usec]    tps average"
    (row,) = read_table(f"{head}\n 2             274            3634.04        137.59\n")
    assert row.values == pytest.approx({"write_lat_average": 3634.04e-6, "write_lat_round_trips": 137.59})


@pytest.mark.parametrize("text", ["", "Couldn't connect to h3:18515\n", IB_WRITE_BW.split(" 65536")[0]])
def test_an_output_without_results_is_an_error(text: str) -> None:
    with pytest.raises(InfrastructureError, match="no table of results"):
        read_table(text)


def test_an_unknown_column_is_an_error() -> None:
    with pytest.raises(InfrastructureError, match="Port1"):
        read_table(" #bytes #iterations  BW average[MB/sec]  BW Port1[MB/sec]\n 2 5 1.0 1.0\n")


@given(
    st.integers(1, 1 << 23),
    st.integers(1, 10**8),
    st.floats(0, 1e12),
    st.booleans(),
)
def test_what_we_print_is_read_back(size: int, iterations: int, average: float, gigabits: bool) -> None:
    options = Options(Tool.WRITE_BW, gigabits=gigabits)
    lines = [*output.table_head(options), output.row(Bandwidth(size, iterations, 0.0, average, 1e6), gigabits=gigabits)]
    (row,) = read_table("\n".join(lines))
    assert (row.size, row.iterations) == (size, iterations)
    assert abs(row.values["write_bw_average"] - 8 * average) <= row.resolutions["write_bw_average"]


@given(st.text(alphabet=" #bytesiterationsBWpeakMB/c[]\n0123456789.-\t", max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InfrastructureError):
        read_table(" #bytes #iterations BW average[MB/sec]\n" + text)


def test_every_figure_is_documented_with_its_unit() -> None:
    units = {}
    for row in METRICS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith(("| `write_bw", "| `write_lat")):
            units.update(dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1]))
    assert units == {name: unit for name, (unit, _) in DEFINITIONS.items()}
