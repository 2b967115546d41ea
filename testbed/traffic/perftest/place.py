"""Which host of which lab a program runs on, and how its other end is reached."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from testbed.addressing import AddressPlan
from testbed.errors import UsageError, nearest
from testbed.fabric.netns.here import find_here
from testbed.lab import Lab
from testbed.traffic.perftest.exchange import Meeting
from testbed.traffic.perftest.options import Options


@dataclass(frozen=True)
class Place:
    """A host of a lab.

    Attributes:
        lab: the lab.
        addresses: its plan.
        host: which of its hosts this is.
        directory: what the hosts of a namespace fabric share; None elsewhere.
    """

    lab: Lab
    addresses: AddressPlan
    host: str
    directory: Path | None

    @classmethod
    def find(cls, options: Options) -> Place:
        """As the options say, or else the environment of a running fabric.

        Raises UsageError where neither tells, LabError for an unknown host.
        """
        if options.lab is not None and options.host is not None:
            lab, host, directory = Lab.load(options.lab), options.host, None
        else:
            here = find_here(os.environ)
            if here is None:
                raise UsageError(
                    "this is no host of a running fabric",
                    found="no TESTBED_NODE in the environment",
                    remedy=f"run `testbed shell HOST -- {options.tool.program}`, or give --lab FILE --host NAME",
                )
            lab, host, directory = here.lab, here.node, here.directory
        if host not in lab.topology.hosts:
            raise UsageError(
                "only hosts have a NIC",
                found=host,
                expected=f"{lab.topology.hosts[0]} … {lab.topology.hosts[-1]}",
                nearest=nearest(host, lab.topology.hosts),
            )
        return cls(lab, AddressPlan(lab), host, directory)

    def meeting(self, options: Options) -> Meeting:
        """Where this end and the other meet: in the fabric's directory, where the other is a host of the fabric."""
        known = options.server is None or options.server in self.lab.topology.hosts
        return Meeting(options.port, self.directory if known else None)

    def check_peer(self, name: str) -> str:
        """The other end's host. Raises UsageError for one that cannot be reached over the fabric."""
        hosts = self.lab.topology.hosts
        if name not in hosts or name == self.host or not self.addresses.evs(self.host, name):
            raise UsageError(
                "this host cannot be the other end",
                where=f"{self.host} of lab {self.lab.name}",
                found=name[:100],
                expected="another host of the lab, with a path to it",
                nearest=nearest(name, [host for host in hosts if host != self.host]),
            )
        return name
