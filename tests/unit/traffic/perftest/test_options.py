"""Command lines as perftest's, and what is answered to those that make no sense here."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from testbed.errors import InfrastructureError, UsageError
from testbed.traffic.perftest.options import ALL_SIZES, Options, Tool, check, command


def run(line: str, tool: Tool = Tool.WRITE_BW) -> tuple[Result, list[Options]]:
    got: list[Options] = []
    return CliRunner().invoke(command(tool, got.append), line.split()), got


def options(line: str, tool: Tool = Tool.WRITE_BW) -> Options:
    result, (got,) = run(line, tool)
    assert result.exit_code == 0
    return got


def test_the_defaults_are_perftests() -> None:
    bandwidth, latency = options(""), options("", Tool.WRITE_LAT)
    assert (bandwidth.port, bandwidth.sizes, bandwidth.iterations, bandwidth.qps) == (18515, (65536,), 5000, 1)
    assert (bandwidth.tx_depth, bandwidth.peak, bandwidth.bidirectional) == (128, True, False)
    assert (latency.sizes, latency.iterations, latency.tx_depth) == ((2,), 1000, 1)
    assert bandwidth.server is None


def test_a_client_names_its_server_last_or_first() -> None:
    assert options("-s 64K -q 4 -b --report_gbits h3") == options(
        "h3 --size=65536 --qp 4 --bidirectional --report_gbits"
    )
    assert options("-s 8M h3").sizes == (8 << 20,)


def test_all_sizes_are_powers_of_two_up_to_8_mib() -> None:
    assert options("-a").sizes == ALL_SIZES
    assert (ALL_SIZES[0], ALL_SIZES[-1], len(ALL_SIZES)) == (2, 1 << 23, 23)


def test_a_run_by_duration_leaves_out_its_first_and_last_quarter_in_whole_seconds() -> None:
    assert [options(f"-D {seconds}").margin_s for seconds in (1, 3, 4, 10)] == [0, 0, 1, 2]
    assert options("-D 4").iterations is None


def test_no_peak_is_looked_for_by_duration_beyond_20000_iterations_or_when_not_wanted() -> None:
    assert [options(line).peak for line in ("-n 20000", "-n 20001", "-D 2", "-N")] == [True, False, False, False]


def test_the_queue_is_never_deeper_than_the_run_is_long() -> None:
    assert options("-n 10").tx_depth == 10


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--sizes 3", "'--size'"),
        ("-s 5X", "64K or 8M"),
        ("-s 0", "64K or 8M"),
        ("-d mrc1", "Did you mean 'mrc0'?"),
        ("-n 4", "5<=x<="),
        ("-m 1500", "'4096'"),
        ("-a -D 2", "not both"),
        ("-q 1000 -s 8M", "fewer with -q"),
        ("--lab laptop", "--host"),
        ("-R h3", "rdma_cm"),
        ("-c UD", "queue pairs are MRC's"),
        ("--use_cuda=0", "memory of accelerators"),
        ("h3 h4", "unexpected extra argument"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(line: str, told: str) -> None:
    result, got = run(line)
    assert (result.exit_code, got) == (2, [])
    assert told in result.output
    assert "Traceback" not in result.output


def test_bandwidth_options_are_no_latency_options() -> None:
    result, _ = run("-q 4", Tool.WRITE_LAT)
    assert result.exit_code == 2


def test_tuning_of_hardware_is_ignored_with_a_word() -> None:
    result, (got,) = run("-x 3 -i 1 -I 220 -Q 100 -u 14 -F -d mrc0")
    assert got == Options(Tool.WRITE_BW)
    ignored = [line.split()[0] for line in result.output.splitlines()]
    assert ignored == ["-x", "-i", "-I", "-Q", "-u"]


def test_both_ends_must_agree_on_what_is_measured_and_on_nothing_else() -> None:
    server, client = options("-s 64 -q 2"), options("-s 64 -q 2 --report_gbits -t 5 --out_json h3")
    assert server.agreed() == client.agreed()
    assert {name for name, value in options("-s 64 -q 3 -b").agreed().items() if server.agreed()[name] != value} == {
        "-q",
        "-b",
    }


def test_an_error_ends_with_its_code_and_text() -> None:
    def fail(_: Options) -> None:
        raise InfrastructureError("no server can be reached", where="h3, port 18515")

    result = CliRunner().invoke(command(Tool.WRITE_BW, fail), ["h3"])
    assert (result.exit_code, result.output) == (4, "h3, port 18515: no server can be reached\n")


def test_ctrl_c_ends_with_130() -> None:
    def interrupt(_: Options) -> None:
        raise KeyboardInterrupt

    assert CliRunner().invoke(command(Tool.WRITE_BW, interrupt), []).exit_code == 130


def test_options_can_be_checked_before_a_program_is_started() -> None:
    check(Tool.WRITE_BW, ["-s", "64"])
    with pytest.raises(UsageError, match="'100' is not one of"):
        check(Tool.WRITE_BW, ["-m", "100"])
