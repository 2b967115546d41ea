"""How long a check asks 64 switches that take their time: all at once, over one connection each."""

from __future__ import annotations

import os
import re
import resource
import tempfile
import time
from pathlib import Path

from testbed.fabric.devices import Driver
from testbed.fabric.rig.check.asking import Told, ask
from testbed.fabric.rig.rig import Rig
from testbed.fabric.rig.together import each
from testbed.pressure import PressureReading
from tests.bench.figures import Figure, Limit, Section
from tests.bench.options import Options
from tests.netns.conftest import realise
from tests.rig.netns_rig import NetnsRig

#: 64 switches, and the hosts without which there is no fabric.
_LAB = "name: rig64\nplanes: 8\nt0_per_plane: 4\nt1_per_plane: 4\nhosts_per_t0: 1\n"
_QUICK = "name: rig8\nplanes: 2\nt0_per_plane: 2\nt1_per_plane: 2\nhosts_per_t0: 1\n"
_ANSWER_S = 0.2
_MOST = 1.5


class _SlowRig(NetnsRig):
    """Devices whose shell begins each command late."""

    def _config(self) -> None:
        super()._config()
        slow = f'sleep {_ANSWER_S}; exec sh -c "$SSH_ORIGINAL_COMMAND"'
        with (self.folder / "config").open("a") as file:
            file.write(f"ForceCommand {slow}\n")

    def logins(self) -> list[int]:
        """How often somebody has logged in, of each switch."""
        accepted = re.compile(r"^Accepted publickey", re.MULTILINE)
        return [len(accepted.findall(self.log(switch))) for switch in self.fabric.lab.topology.switches]


def measure(options: Options) -> Section:
    """Ask one switch, then log in to all, then ask all."""
    repetitions = 1 if options.quick else 5
    alone: list[float] = []
    handshakes: list[float] = []
    whole: list[float] = []
    ratio: list[float] = []
    connections: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="testbed-rig-") as name,
        realise(_QUICK if options.quick else _LAB) as fabric,
    ):
        rig = _SlowRig(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")
        count = len(fabric.lab.topology.switches)
        for _ in range(repetitions):
            alone.append(_alone(rig))
            handshakes.append(_handshakes(rig))
            before = rig.logins()
            whole.append(_asked(rig))
            ratio.append(whole[-1] / (_MOST * alone[-1] + handshakes[-1]))
            connections.append(float(max(now - then for now, then in zip(rig.logins(), before, strict=True))))
    every = f"{count} switches, each of which takes {_ANSWER_S * 1000:.0f} ms longer for each command"
    return Section(
        "rig-check",
        every,
        (
            Figure("one alone", "s", "from the login to the last answer of a check of one of them", tuple(alone)),
            Figure(
                "handshakes",
                "s",
                "processor time that the machine spent while all were logged in to, one by one",
                tuple(handshakes),
            ),
            Figure("all", "s", "the same as the first, of all at once", tuple(whole)),
            Figure(
                "all, of what it may take",
                "×",
                f"all, divided by {_MOST:g} times one alone and the handshakes",
                tuple(ratio),
                Limit("<=", 1.0),
            ),
            Figure("connections", "", "the most to one switch", tuple(connections), Limit("<=", 2.0, "worst")),
        ),
        (
            "the switches are namespaces of this machine with an sshd each: their work is this machine's, too",
            "what else this machine does cannot be told from what they do, and makes `all` longer more than the rest",
        ),
    )


def _ask(driver: Driver, block: str) -> Told:
    told = ask(driver, block)
    assert not told.unreachable, told.unreachable
    assert told.usids, told.failed
    return told


def _alone(devices: NetnsRig) -> float:
    with Rig(devices.lab) as rig:
        began = time.perf_counter()
        _ask(rig.drivers[devices.lab.topology.switches[-1]], str(rig.addresses.block))
        return time.perf_counter() - began


def _asked(devices: NetnsRig) -> float:
    with Rig(devices.lab) as rig:
        began = time.perf_counter()
        said = each(devices.lab.topology.switches, lambda node: _ask(rig.drivers[node], str(rig.addresses.block)))
        took = time.perf_counter() - began
    assert all(isinstance(value, Told) for value in said.values()), said
    return took


def _handshakes(devices: NetnsRig) -> float:
    """Processor time of everything on this machine while nothing is asked but logins, less what it idles beside."""
    with Rig(devices.lab) as rig:
        before, began = PressureReading.take(), _own()
        for switch in devices.lab.topology.switches:
            rig.drivers[switch].connection._connected()  # type: ignore[attr-defined]
        own, spent = _own() - began, PressureReading.take().since(before)
    busy = 0.0 if spent.cpu_headroom is None else (1 - spent.cpu_headroom) * spent.elapsed_s * (os.cpu_count() or 1)
    return max(own, busy)


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
