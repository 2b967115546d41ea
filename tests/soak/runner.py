"""What the soak kills: a whole experiment on a tiny fabric, saying on standard output which phase it has reached.

python -m tests.soak.runner NAME
"""

from __future__ import annotations

import os
import sys

LAB = """
name: soak
planes: 2
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 1
reboot:
  cold: {links_lost: 60 ms, tables_empty: 60 ms}
"""
INTERRUPTED = 130
_ROUNDS_BEFORE_THE_REBOOT = 20


def say(phase: str) -> None:
    os.write(1, f"{phase}\n".encode())


def experiment(name: str) -> None:
    from testbed.fabric.netns.fabric import bring_up
    from testbed.faults.catalogue import Faults
    from testbed.lab import Lab
    from testbed.traffic.workloads import Traffic

    lab = Lab.parse(LAB)
    say("up")
    with bring_up(lab, name=name) as fabric:
        say("start")
        flows = Traffic(fabric).probes("all", rate=400)
        with flows.running():
            say("send")
            flows.wait_rounds(_ROUNDS_BEFORE_THE_REBOOT)
            with Faults(fabric).reboot(fabric.t1(carrying=flows)) as reboot:
                say("reboot")
                reboot.wait("forwarding")
            say("finish")
        say("down")
    say("ended")


def main() -> int:
    from testbed.errors import BedError

    try:
        experiment(sys.argv[1])
    except BedError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
