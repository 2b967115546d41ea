"""A runner in a process of its own: takes a rig, holds it, and says on its output when it touches a device.

python -m tests.rig.lease_agent URL race RIG WITNESS    a round for each line of its input
python -m tests.rig.lease_agent URL hold RIG HEARTBEAT  holds it and touches all the time, until it is killed
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from testbed.lab.inventory import Device
from testbed.lab.rig import Credential
from testbed.leases import BusyError, Database, HeldLease, Journal, LeaseLostError, Leases


def race(leases: Leases, rig: str, witness: Path) -> None:
    """Each round: try to take the rig; whoever has it makes a file that nobody else may have made."""
    print("ready", flush=True)
    for _ in sys.stdin:
        try:
            taken = leases.take([rig], ttl_s=60)
        except BusyError:
            print("busy", flush=True)
            continue
        try:
            os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
            print("had it", flush=True)
            # Held until the other has had its try as well.
            sys.stdin.readline()
            witness.unlink()
        except FileExistsError:
            print("BOTH", flush=True)
        leases.release(taken.id)
        print("released", flush=True)


def device(rig: str) -> Device:
    credential = Credential.model_validate({"user": "x", "agent": True})
    return Device(rig=rig, node="h0", driver="none", address="192.0.2.1", port=22, credential=credential)


def hold(leases: Leases, rig: str, heartbeat_s: float) -> None:
    """Touch a device whenever that is allowed, and say when (CLOCK_MONOTONIC, which stands still for nobody)."""
    with HeldLease.take(leases, [rig], heartbeat_s=heartbeat_s) as lease:
        Journal(leases.database).begin(lease, device(rig), "a change", {"kind": "none"}).made()
        print("held", lease.token(rig), flush=True)
        while True:
            try:
                lease.guard()
                print("touched", time.monotonic(), flush=True)
            except LeaseLostError as error:
                print("refused", time.monotonic(), error.found, flush=True)
            time.sleep(0.005)


if __name__ == "__main__":
    url, what, rig, argument = sys.argv[1:]
    with Database(url, timeout_s=5) as database:
        if what == "race":
            race(Leases(database), rig, Path(argument))
        else:
            hold(Leases(database), rig, float(argument))
