"""``testbed run`` and ``testbed rerun``: a fabric, a workload, a fault, and what it cost."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.heal import look_after
from testbed.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.experiment.scenario import Scenario
    from testbed.fabric.netns.fabric import NetnsFabric
    from testbed.fabric.rig.fabric import RigFabric
    from testbed.faults.catalogue import Faults
    from testbed.lab import Lab
    from testbed.live.exporter import Exporter
    from testbed.measure.result import Result

_FAULTS = ("t1-reboot", "t0-reboot", "core-link", "host-link", "none")


def _number(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    """Callback that refuses NaN, which is in every range as far as click can tell."""
    if math.isnan(value):
        raise click.BadParameter("nan is not a number of packets")
    return value


@click.command()
@click.argument("lab", default="laptop")
@click.option("--fault", type=click.Choice(_FAULTS), default="t1-reboot", show_default=True, help="What happens.")
@click.option("--target", default="", metavar="NAME", help="Switch or link it happens to [default: the busiest].")
@click.option("--pairs", type=click.Choice(["permutation", "all"]), default="permutation", show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(1, 1e7),
    callback=_number,
    default=4000.0,
    show_default=True,
    help="Packets/s of all flows together.",
)
@click.option("--size", type=click.IntRange(156, 65575), default=256, show_default=True, help="Bytes of a probe.")
@click.option("--calls", type=click.IntRange(0, 30), default=0, show_default=True, help="Calls in place of probes.")
@click.option(
    "--path",
    type=click.Choice(["pinned", "hashed", "sprayed"]),
    default="sprayed",
    show_default=True,
    help="How what calls send is spread over paths.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the result file instead of a summary.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Tell Prometheus there meanwhile; 0: any port.")
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="The address for that.")
def run(lab: str, out: Path, as_json: bool, metrics_port: int | None, metrics_host: str, **_options: Any) -> None:
    """Build LAB from namespaces, send probes over all its paths, break something, and measure what that cost.

    --calls puts WebRTC calls on it instead; --pairs, --rate and --size are of probes. LAB then has time scale 1.

    LAB is a file or a shipped lab. Writes a result file, its samples and a page below --out. Exit codes: 0 pass,
    1 fail, 2 usage, 3 unknown, 4 infrastructure, 5 unhealed.
    """
    from testbed.lab import Lab

    loaded = Lab.load(lab)
    with _exporting(metrics_port, metrics_host, quiet=as_json) as exporter:
        _execute(loaded, lab, _scenario(click.get_current_context().params), out, as_json, exporter)


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the result file instead of a summary.")
def rerun(result: Path, out: Path, as_json: bool) -> None:
    """Run again what RESULT, a result file or its folder, was made by: same lab, workload, fault and seed."""
    from testbed.lab import Lab
    from testbed.measure.resultfile import read_result

    file = result / "result.json" if result.is_dir() else result
    earlier = read_result(file)
    if earlier.command[:1] == ("pytest",):
        # This environment's pytest, which need not be the one in PATH, if one is.
        raise SystemExit(subprocess.run([sys.executable, "-m", *earlier.command], check=False).returncode)
    if earlier.command[:2] != ("testbed", "run"):
        raise UsageError(
            "this result does not say how to run it again",
            where=str(file),
            found=shlex.join(earlier.command),
            expected="a command that begins with `testbed run` or `pytest`",
        )
    # The lab comes from the result, whatever has become of the file it was read from.
    options = run.make_context("run", list(earlier.command[2:])).params
    _execute(Lab.model_validate(earlier.lab), options["lab"], _scenario(options), out, as_json)


def _scenario(options: dict[str, Any]) -> Scenario:
    from testbed.experiment.scenario import FaultKind, Scenario

    wanted = {name: options[name] for name in ("target", "pairs", "rate", "size", "seed", "calls", "path")}
    return Scenario(FaultKind(options["fault"]), **wanted)


@contextmanager
def _exporting(port: int | None, host: str, *, quiet: bool) -> Iterator[Exporter | None]:
    """Metrics while the block runs, where a port was asked for."""
    if port is None:
        yield None
        return
    from testbed.live.exporter import Exporter

    with Exporter(port, suite="testbed run", host=host) as exporter:
        click.echo(f"metrics: {exporter.url}", err=quiet)
        yield exporter


def _execute(
    lab: Lab, named: str, scenario: Scenario, out: Path, as_json: bool, exporter: Exporter | None = None
) -> None:
    from testbed.cli.terminal import Narrator
    from testbed.experiment.run_folder import RunFolder
    from testbed.experiment.scenario import run as carry_out
    from testbed.faults.catalogue import Faults

    look_after()
    narrator = Narrator(quiet=as_json)
    folder = RunFolder.plan(out, lab.name)
    began = time.monotonic()
    with narrator.progress() as progress:
        fabric = _bring_up(lab, progress)
    with fabric:
        topology = lab.topology
        narrator.step(
            f"{lab.name}: {len(topology.nodes)} nodes and {len(topology.links)} links up, "
            f"every table verified, in {time.monotonic() - began:.2f} s"
        )
        faults = Faults(fabric)
        measured = carry_out(fabric, scenario, faults, narrator.step)
        left = fabric.check()
    if exporter is not None:
        exporter.failovers(lab.name, measured.figures)
    result = folder.keep(
        measured,
        lab,
        faults.history,
        left,
        title=_title(lab, faults, scenario.calls),
        command=_command(named, scenario, faults),
        seeds={"workload": scenario.seed},
    )
    if as_json:
        click.echo(folder.result_file.read_text())
    else:
        narrator.summary(result, folder.page)
    raise SystemExit(int(_exit_code(result)))


def _bring_up(lab: Lab, progress: Callable[[str, int, int], None]) -> NetnsFabric | RigFabric:
    """The lab as namespaces, or the devices that it names."""
    if lab.rig is None:
        from testbed.fabric.netns import fabric as namespaces

        return namespaces.bring_up(lab, progress=progress)
    from testbed.fabric.rig import fabric as rig

    return rig.bring_up(lab, progress=progress, purpose="testbed run")


def _title(lab: Lab, faults: Faults, calls: int) -> str:
    what = ", ".join(scope.name for scope in faults.history)
    return f"{what or ('calls' if calls else 'path probes')} on {lab.name}"


def _command(lab: str, scenario: Scenario, faults: Faults) -> tuple[str, ...]:
    """The command that does this again, with the target that was chosen."""
    command = ["testbed", "run", lab, "--fault", scenario.fault, "--pairs", scenario.pairs]
    command += ["--rate", f"{scenario.rate:g}", "--size", str(scenario.size), "--seed", str(scenario.seed)]
    command += ["--calls", str(scenario.calls), "--path", scenario.path] if scenario.calls else []
    target = scenario.target or next((scope.subject for scope in faults.history), "")
    return (*command, "--target", target) if target else tuple(command)


def _exit_code(result: Result) -> ExitCode:
    from testbed.measure.result_parts import Verdict

    if result.unhealed_faults:
        return ExitCode.UNHEALED
    return {Verdict.PASS: ExitCode.PASS, Verdict.FAIL: ExitCode.FAIL}.get(result.verdict, ExitCode.UNKNOWN)
