"""The output, character for character as perftest's format strings give it."""

from __future__ import annotations

import json

from testbed.mrc.qp import QpAttributes, Region
from testbed.traffic.perftest import output
from testbed.traffic.perftest.options import Options, Tool
from testbed.traffic.perftest.output import Bandwidth, Latency, LatencyByDuration

RULE = "---------------------------------------------------------------------------------------"
CLIENT = Options(Tool.WRITE_BW, server="h3", qps=2)


def test_a_clients_header() -> None:
    expected = f"""\
{RULE}
                    RDMA_Write BW Test
 Dual-port       : OFF\t\tDevice         : mrc0
 Number of qps   : 2\t\tTransport type : MRC
 Connection type : RC\t\tUsing SRQ      : OFF
 TX depth        : 128
 CQ Moderation   : 1
 Mtu             : 4096[B]
 Link type       : Ethernet
 Max inline data : 0[B]
 rdma_cm QPs\t : OFF
 Data ex. method : Unix socket
{RULE}"""
    assert "\n".join(output.header(CLIENT, 4096, "Unix socket")) == expected


def test_a_server_that_only_receives_has_no_send_queue_to_tell_of() -> None:
    def depth(options: Options) -> bool:
        return any("TX depth" in line for line in output.header(options, 4096, "Ethernet"))

    assert not depth(Options(Tool.WRITE_BW))
    assert depth(Options(Tool.WRITE_BW, bidirectional=True))
    assert depth(Options(Tool.WRITE_LAT))


def test_titles() -> None:
    assert output.title(Options(Tool.WRITE_BW, bidirectional=True)) == "RDMA_Write Bidirectional BW Test"
    assert output.title(Options(Tool.WRITE_LAT)) == "RDMA_Write Latency Test"


def test_addresses() -> None:
    attributes = QpAttributes(0x108, 0x63AD7D, 8, 4096, "fd00::1:203", (Region(0x7F760C947000, 64, 0x17EEDF),))
    assert output.address("local", attributes) == [
        " local address: LID 0000 QPN 0x0108 PSN 0x63ad7d RKey 0x17eedf VAddr 0x007f760c947000",
        " GID: 253:00:00:00:00:00:00:00:00:00:00:00:00:01:02:03",
    ]


def test_a_bandwidth_table() -> None:
    report = Bandwidth(65536, 5000, 12_000 * 2**20, 11_000.125 * 2**20, 176_002)
    assert [*output.table_head(CLIENT), output.row(report)] == [
        RULE,
        " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]",
        " 65536      5000             12000.00            11000.12\t\t   0.176002",
    ]


def test_gigabits_are_ten_to_the_ninth_and_small_ones_have_six_digits() -> None:
    large, small = Bandwidth(16, 5000, 42e6, 21_250_000, 2.6e6), Bandwidth(2, 5000, 5.29e6, 5.27e6, 2.636533e6)
    rows = [output.row(report, gigabits=True) for report in (large, small)]
    assert rows == [
        " 16         5000             0.34               0.17   \t\t   2.600000",
        " 2          5000           0.042320            0.042160            2.636533",
    ]
    assert "BW average[Gb/sec]" in output.table_head(Options(Tool.WRITE_BW, gigabits=True))[1]


def test_a_latency_table() -> None:
    report = Latency(2, 1000, 1.24, 5.19, 1.27, 1.271, 0.0, 1.37, 5.19)
    times, figures = (
        " 2       1000          1.24           5.19         1.27   ",
        "1.27        \t0.00   \t\t1.37    \t\t5.19   ",
    )
    columns = "t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]"
    head = f" #bytes #iterations    {columns}   99% percentile[usec]   99.9% percentile[usec] "
    assert [*output.table_head(Options(Tool.WRITE_LAT)), output.row(report)] == [
        RULE,
        head,
        f"{times}  \t       {figures}",
    ]


def test_a_latency_table_by_duration() -> None:
    head = output.table_head(Options(Tool.WRITE_LAT, duration_s=4, iterations=None))
    assert head[1] == " #bytes        #iterations       t_avg[usec]    tps average"
    row = output.row(LatencyByDuration(2, 274, 3634.04, 137.59))
    assert row == " 2             274            3634.04        137.59 "


def test_directions_add_up() -> None:
    both = Bandwidth(64, 100, 3.0, 2.0, 1.0) + Bandwidth(64, 90, 30.0, 20.0, 10.0)
    assert both == Bandwidth(64, 100, 33.0, 22.0, 11.0)


def test_the_json_has_perftests_keys() -> None:
    report = json.loads(output.as_json(CLIENT, 4096, Bandwidth(64, 100, 2.5 * 2**20, 2**20, 16384)))
    assert report["results"] == {
        "MsgSize": 64,
        "n_iterations": 100,
        "BW_peak": 2.5,
        "BW_average": 1.0,
        "MsgRate": 0.016384,
    }
    assert report["test_info"]["test"] == "RDMA_Write_BW_Test"
    latency = json.loads(output.as_json(Options(Tool.WRITE_LAT), 4096, Latency(2, 9, 1, 2, 3, 4, 5, 6, 7)))
    assert list(latency["results"])[2:] == [
        "t_min",
        "t_max",
        "t_typical",
        "t_avg",
        "t_stdev",
        "percentile_99",
        "percentile_99.9",
    ]


def test_a_histogram_numbers_its_samples() -> None:
    assert output.histogram([1.5, 0.25]) == ["#, usec", "1, 1.5", "2, 0.25"]
