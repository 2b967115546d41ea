"""How soon a call of libwebrtc's is whole again after its relay was killed and started again, with and without a store.

    python -m tests.soak.voice_recovery --rounds 10

One call, whose relay dies once a round; times count from when the new relay says that it is up. The uplink is back by
the next connectivity check, or at once where the store knows the client; the downlink needs neither. Exit code 1 where
a limit is not kept, 3 where the machine takes so long to start a relay that libwebrtc gives up, 4 where it could not be
carried out.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from testbed.voice import rtplog
from testbed.voice.rtplog import Way
from tests.netns.voice.calls import BETWEEN, PUBLIC, WITHIN, make_network, no_namespaces, program, scene
from tests.netns.voice.forwarder import Forwarder, rtp
from tests.netns.voice.relays import ROOT, RelayProcess, environment
from tests.netns.waiting import wait_until

#: Seconds, of the uplink by STUN alone and with a store, and of the downlink.
BY_STUN, BY_STORE, DOWN = 3.0, 0.3, 0.3
#: After so long without an answer libwebrtc checks seldom, and then not at all.
_PATIENCE_S = 6.0
_WHOLE_PACKETS = 50


class MachineError(RuntimeError):
    """This machine is too slow to tell."""


@dataclass(frozen=True)
class Recovery:
    """One restart, in seconds.

    Attributes:
        down: from the relay's end to the next one's being up.
        uplink, downlink: from then to the first RTP packet that the transceiver, or the client, got through it.
    """

    down: float
    uplink: float
    downlink: float


def recoveries(directory: Path, rounds: int, *, store: bool) -> list[Recovery]:
    """Kill and restart the relay of a call; in a network namespace with the addresses that calls need."""
    log, kept = directory / "log", directory / "store"
    kept.mkdir()
    options = ["--store", f"embedded:{kept}"] if store else []
    came: list[int] = []

    def down(way: str, data: bytes) -> float:
        if way == "out" and rtp(data):
            came.append(time.monotonic_ns())
        return 0.0

    def arrived(after_ns: int) -> list[int]:
        rows = rtplog.read(log)[0].packets
        times = rows["t_ns"][(rows["way"] == Way.RECEIVED) & (rows["t_ns"] > after_ns)]
        return [int(each) for each in times]

    def both(since_ns: int, packets: int) -> bool:
        return len(arrived(since_ns)) >= packets and bool(came) and came[-1] > since_ns

    def stored(relay: RelayProcess) -> bool:
        return not store or int(relay.status()["store"]["written"]) >= 1

    found = []
    with (
        closing(Forwarder(BETWEEN, PUBLIC)) as between,
        scene(directory, "--log", str(log), relay_options=options, through=BETWEEN) as made,
        program("tests.netns.voice.wrtc_call", made.transceiver.url, "3600") as process,
    ):
        between.fate = down
        relay, up_ns = made.relay, 0
        for _ in range(rounds):
            wait_until(partial(both, up_ns, _WHOLE_PACKETS), "there is audio both ways", 30)
            wait_until(partial(stored, relay), "the session is stored", 30)
            relay.kill()
            killed_ns = time.monotonic_ns()
            relay = RelayProcess(
                directory / "relay",
                {"cluster": 1, "transceivers": {"7": made.transceiver.address}},
                made.keys,
                *options,
                listen=PUBLIC,
                internal=made.relay.internal,
            )
            up_ns = time.monotonic_ns()
            try:
                if (took := (up_ns - killed_ns) * 1e-9) > _PATIENCE_S:
                    raise MachineError(f"{took:.0f} s to start a relay; libwebrtc gives a call up after 15")
                wait_until(partial(both, up_ns, 1), "both ways are back", 30)
            except BaseException:
                relay.kill()
                raise
            downlink = next(each for each in came if each > up_ns)
            found.append(Recovery(took, (min(arrived(up_ns)) - up_ns) * 1e-9, (downlink - up_ns) * 1e-9))
        assert process.poll() is None, "the call has gone on"
        relay.kill()
        process.kill()
    return found


def row(name: str, seconds: Sequence[float], limit: float) -> str:
    """A line of the table."""
    kept = "kept" if max(seconds) <= limit else "NOT KEPT"
    return (
        f"{name:32}{len(seconds):>4}{1000 * statistics.median(seconds):>10.0f} ms{1000 * max(seconds):>10.0f} ms"
        f"{1000 * limit:>10.0f} ms  {kept}"
    )


def within(rounds: int) -> int:
    """All of it, in a namespace of its own; the exit code."""
    make_network()
    print(f"{'':32}{'n':>4}{'median':>13}{'longest':>13}{'limit':>13}", flush=True)
    lines = []
    for store, title, limit in ((False, "by STUN alone", BY_STUN), (True, "with the store", BY_STORE)):
        with tempfile.TemporaryDirectory() as directory:
            found = recoveries(Path(directory), rounds, store=store)
        lines.append(row(f"uplink {title}", [each.uplink for each in found], limit))
        lines.append(row(f"downlink {title}", [each.downlink for each in found], DOWN))
        print("\n".join(lines[-2:]), flush=True)
        print(f"  the relay was away for {min(e.down for e in found):.1f} to {max(e.down for e in found):.1f} s")
    return int(any("NOT KEPT" in line for line in lines))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.voice_recovery", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="restarts of each kind [5]")
    parser.add_argument("--within", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    missing = no_namespaces() or ("" if importlib.util.find_spec("webrtc") else "not run: pip install wrtc==0.1.0")
    if missing:
        print(missing, file=sys.stderr)
        return 4
    if not arguments.within:
        command = [*WITHIN, sys.executable, "-m", "tests.soak.voice_recovery", "--within"]
        command += ["--rounds", str(arguments.rounds)]
        return subprocess.run(command, env=environment(), cwd=ROOT, check=False).returncode
    try:
        return within(arguments.rounds)
    except MachineError as error:
        print(f"undecided: this machine took {error}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
