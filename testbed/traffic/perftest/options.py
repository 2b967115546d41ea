"""Options of the programs: perftest's letters, names, defaults and limits, where a software NIC has a use for them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NoReturn

import click

from testbed import __version__
from testbed.errors import BedError, UsageError
from testbed.mrc.datapath.plan import PMTUS
from testbed.mrc.sendqueue import DEPTH

#: The NIC's name, as ``-d`` takes it: there is one for each host.
DEVICE: Final = "mrc0"
PORT: Final = 18515
#: Sizes of ``-a``: 2, 4, … 2^23.
ALL_SIZES: Final = tuple(1 << power for power in range(1, 24))
ITERATIONS_LEAST, ITERATIONS_MOST = 5, 100_000_000
#: More iterations than that, and no peak is looked for.
PEAK_ITERATIONS: Final = 20_000
QPS_MOST: Final = 1024
#: Of the memory of one end.
MEMORY_MOST: Final = 1 << 30
_INTERRUPTED: Final = 130


class Tool(StrEnum):
    """What is measured."""

    WRITE_BW = "write_bw"
    WRITE_LAT = "write_lat"

    @property
    def program(self) -> str:
        """Name of the program."""
        return f"mrc_{self}"


@dataclass(frozen=True)
class Options:
    """A run, as its command line says it.

    Attributes:
        tool: what is measured.
        server: the host whose server to connect to; None: be the server.
        port: of the exchange between the two ends.
        sizes: bytes of a message, one run each.
        iterations: messages of each queue pair and size; None with a duration.
        duration_s: how long to run; the first and the last quarter (whole seconds) are not counted.
        qps: queue pairs.
        mtu: payload bytes of a full packet; None: the largest that fits the links.
        tx_depth: messages outstanding on each queue pair.
        bidirectional: both ends send.
        peak: look for the peak.
        gigabits: report Gb/s, not MB/s.
        histogram: print every latency: ``sorted``, ``unsorted``, or not at all.
        json_file: also report there.
        lab, host: which host of which lab this is; None in a running fabric, which tells it.
    """

    tool: Tool
    server: str | None = None
    port: int = PORT
    sizes: tuple[int, ...] = (65536,)
    iterations: int | None = 5000
    duration_s: int | None = None
    qps: int = 1
    mtu: int | None = None
    tx_depth: int = 128
    bidirectional: bool = False
    peak: bool = True
    gigabits: bool = False
    histogram: str = ""
    json_file: str | None = None
    lab: str | None = None
    host: str | None = None

    @property
    def margin_s(self) -> int:
        """Seconds not counted at either end of a run by duration: a quarter, as perftest's default."""
        return 0 if self.duration_s is None else self.duration_s // 4

    def agreed(self) -> dict[str, int | bool | str | list[int] | None]:
        """What both ends must be given alike: option → value."""
        return {
            "test": str(self.tool),
            "-s or -a": list(self.sizes),
            "-n": self.iterations,
            "-D": self.duration_s,
            "-q": self.qps,
            "-m": self.mtu,
            "-b": self.bidirectional,
        }


#: What perftest can set and a software NIC has not: name → what it is.
_ELSEWHERE: Final = {
    **dict.fromkeys(("-R", "--rdma_cm", "-z", "--comm_rdma_cm", "-T", "--tos"), "rdma_cm"),
    **dict.fromkeys(("-c", "--connection"), "other transports: queue pairs are MRC's"),
    **dict.fromkeys(("-e", "--events", "-X", "--vector"), "completion events"),
    **dict.fromkeys(("-S", "--sl", "--tclass", "--flow_label"), "service levels and classes: MRC sets DSCP and EV"),
    **dict.fromkeys(("-O", "--dualport", "--report-per-port"), "two ports: MRC uses one per plane by itself"),
    **dict.fromkeys(("-l", "--post_list", "--recv_post_list", "--use_old_post_send"), "ways to post to hardware"),
    **dict.fromkeys(("--rate_limit", "--rate_units", "--rate_limit_type", "--burst_size"), "rate limits in hardware"),
    **dict.fromkeys(("--use_cuda", "--use_rocm", "--use_neuron", "--use_hl", "--use_mlu"), "memory of accelerators"),
    **dict.fromkeys(("--odp", "--use_hugepages", "--mmap", "--use-null-mr"), "other kinds of memory"),
}
#: Of no effect here, so that a command line written for hardware still runs: option → why.
_IGNORED: Final = {
    ("-i", "--ib-port"): "the NIC uses the ports of all planes",
    ("-I", "--inline_size"): "software reads payload where it lies",
    ("-Q", "--cq-mod"): "every completion is taken",
    ("-u", "--qp-timeout"): "the timeout follows from the lab's time scale",
    ("-x", "--gid-index"): "the NIC has one address",
}


class _Program(click.Command):
    """A command that ends with the exit code of the error it raises, and with its text instead of a trace."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            what = _ELSEWHERE.get(error.option_name.partition("=")[0])
            if what is not None:
                raise click.UsageError(
                    f"perftest's option {error.option_name} sets what the software NIC does not have: {what}.", ctx
                ) from None
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BedError as error:
            for line in error.lines():
                click.echo(line, err=True)
            ctx.exit(int(error.exit_code))
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            ctx.exit(_INTERRUPTED)


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Bytes, with K or M for 2^10 and 2^20."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,12})([KM]?)", str(value))
        size = 0 if match is None else int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2]]
        if not 1 <= size <= MEMORY_MOST:
            self.fail(
                f"{value!r} is not a size in bytes, from 1 to {MEMORY_MOST}, such as 65536, 64K or 8M", param, ctx
            )
        return size


def _ignore(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None and ctx.get_parameter_source(str(param.name)) is click.core.ParameterSource.COMMANDLINE:
        why = next(why for names, why in _IGNORED.items() if names[0] in param.opts)
        click.echo(f" {param.opts[0]} is ignored: {why}", err=True)


def _device(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if value != DEVICE:
        raise click.BadParameter(f"there is no device {value!r} here. Did you mean {DEVICE!r}?")
    return value


def command(tool: Tool, run: Callable[[Options], None]) -> click.Command:
    """The program's command line; ``run`` gets the options that it came to."""
    bandwidth = tool is Tool.WRITE_BW
    params: list[click.Parameter] = [
        click.Argument(["server"], required=False),
        click.Option(["-a", "--all", "every"], is_flag=True, help="Run sizes from 2 to 2^23."),
        click.Option(["-d", "--ib-dev"], default=DEVICE, callback=_device, help=f"The device; there is {DEVICE}."),
        click.Option(["-D", "--duration"], type=click.IntRange(1, 86_400), help="Run for so many seconds."),
        click.Option(["-F", "--CPU-freq", "cpu_freq"], is_flag=True, help="Accepted; nothing warns about frequencies."),
        click.Option(["-m", "--mtu"], type=click.Choice([str(size) for size in PMTUS]), help="Path MTU."),
        click.Option(
            ["-n", "--iters"],
            type=click.IntRange(ITERATIONS_LEAST, ITERATIONS_MOST),
            default=5000 if bandwidth else 1000,
            show_default=True,
            help="Messages of each queue pair." if bandwidth else "Round trips.",
        ),
        click.Option(
            ["-p", "--port"], type=click.IntRange(1, 65535), default=PORT, show_default=True, help="Of the exchange."
        ),
        click.Option(
            ["-s", "--size"], type=_Size(), default=65536 if bandwidth else 2, show_default=True, help="Of a message."
        ),
        click.Option(["--out_json"], is_flag=True, help="Save the report as JSON, too."),
        click.Option(
            ["--out_json_file"], default="perftest_out.json", show_default=True, help="Where.", metavar="FILE"
        ),
        click.Option(["--lab"], metavar="FILE", help="Outside of a running fabric: the lab this machine belongs to."),
        click.Option(["--host"], metavar="NAME", help="Outside of a running fabric: which of its hosts this is."),
        *(
            click.Option([*names, f"ignored_{names[0][1:]}"], callback=_ignore, expose_value=False, hidden=True)
            for names in _IGNORED
        ),
    ]
    if bandwidth:
        params += [
            click.Option(["-b", "--bidirectional"], is_flag=True, help="Both ends send."),
            click.Option(["-N", "--noPeak", "no_peak"], is_flag=True, help="Do not look for the peak."),
            click.Option(
                ["-q", "--qp", "qps"], type=click.IntRange(1, QPS_MOST), default=1, help="Queue pairs.  [default: 1]"
            ),
            click.Option(
                ["-t", "--tx-depth"],
                type=click.IntRange(1, DEPTH),
                default=128,
                show_default=True,
                help="Messages outstanding on each queue pair.",
            ),
            click.Option(["--report_gbits"], is_flag=True, help="Report Gb/s (10^9) instead of MB/s (2^20)."),
        ]
    else:
        params += [
            click.Option(["-H", "--report-histogram", "histogram"], is_flag=True, help="Print every latency, sorted."),
            click.Option(["-U", "--report-unsorted", "unsorted"], is_flag=True, help="Print every latency in order."),
        ]

    def callback(**given: Any) -> None:
        run(_options(tool, given))

    made = _Program(
        tool.program,
        params=params,
        callback=callback,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Without SERVER wait for a client; with it connect to the server on that host and measure.",
    )
    return click.version_option(__version__, "-V", "--version", prog_name=tool.program)(made)


def _options(tool: Tool, given: dict[str, Any]) -> Options:
    if given["every"] and given["duration"] is not None:
        raise click.UsageError("a run by duration has one size: give -a or -D, not both.")
    if (given["lab"] is None) != (given["host"] is None):
        raise click.UsageError("--lab and --host say together which host this is.")
    iterations = None if given["duration"] is not None else int(given["iters"])
    qps = int(given.get("qps", 1))
    sizes = ALL_SIZES if given["every"] else (int(given["size"]),)
    if 2 * max(sizes) * qps > MEMORY_MOST:
        raise UsageError(
            "these queue pairs need too much memory",
            found=f"{qps} queue pairs with 2 x {max(sizes)} bytes each",
            expected=f"at most {MEMORY_MOST} bytes together",
            remedy="give fewer with -q, or smaller ones with -s",
        )
    countable = iterations is not None and iterations <= PEAK_ITERATIONS
    depth = int(given.get("tx_depth", 1))
    return Options(
        tool=tool,
        server=given["server"],
        port=int(given["port"]),
        sizes=sizes,
        iterations=iterations,
        duration_s=given["duration"],
        qps=qps,
        mtu=None if given["mtu"] is None else int(given["mtu"]),
        tx_depth=depth if iterations is None else min(depth, iterations),
        bidirectional=bool(given.get("bidirectional", False)),
        peak=countable and not given.get("no_peak", False),
        gigabits=bool(given.get("report_gbits", False)),
        histogram="unsorted" if given.get("unsorted") else "sorted" if given.get("histogram") else "",
        json_file=given["out_json_file"] if given["out_json"] else None,
        lab=given["lab"],
        host=given["host"],
    )


def check(tool: Tool, argv: Sequence[str]) -> None:
    """Raise UsageError for a command line that the program would refuse."""
    try:
        command(tool, lambda _: None).main(list(argv), standalone_mode=False)
    except click.ClickException as error:
        raise UsageError(
            f"{tool.program} would refuse these options", found=" ".join(argv), expected=error.format_message()
        ) from error


def run_program(tool: Tool, run: Callable[[Options], None]) -> NoReturn:
    """Be the program: read the command line, run, end the process with its exit code."""
    command(tool, run).main(prog_name=tool.program)
    sys.exit(0)
