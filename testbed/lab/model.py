"""The lab: one typed, immutable description of a fabric, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from testbed.lab.absent import parse_absent
from testbed.lab.fields import Duration, EcnThreshold, Limits, Prefix, QueueDepth, Rate, Section, Texts, Usid
from testbed.lab.rig import Rig
from testbed.lab.roles import Roles
from testbed.lab.shape import Shape
from testbed.lab.topology import Topology

#: From RFC 9602's 5f00::/16.
DEFAULT_BLOCK: Final = "5f00::/32"
#: A unique local prefix (RFC 4193) drawn once at random.
DEFAULT_NIC_PREFIX: Final = "fd8e:4a17:c2b6::/48"
#: A queue nobody sized holds this long at the emulated rate, and never less than so many packets of the MTU.
DEFAULT_QUEUE_SECONDS: Final = 0.010
DEFAULT_QUEUE_PACKETS: Final = 16
#: A queue whose marking nobody sized marks (ECN) from this share of it on, and never from less than so many packets of
#: the MTU. The three quarters left take what arrives while senders learn of the marks; four packets are twice what a
#: shaped port ahead lets through at once, so that a flow which finds no other in its way is never marked.
DEFAULT_ECN_SHARE: Final = 0.25
DEFAULT_ECN_PACKETS: Final = 4


class LinkSettings(Section):
    """What every link of the fabric is like."""

    rate: Annotated[
        Rate | None, Field(description="What the real link would carry, such as 100Gbit/s. Left out: unshaped.")
    ] = None
    mtu: Annotated[
        int, Field(ge=1320, le=65535, description="Largest IPv6 packet, outer header included, in bytes.")
    ] = 9000
    queue: Annotated[
        QueueDepth | None,
        Field(description="What a port's queue holds: a time at the emulated rate, or a size. Needs a rate."),
    ] = None
    ecn: Annotated[
        EcnThreshold | None,
        Field(description="What a queue between switches holds when it begins to mark (ECN), or off. Needs a rate."),
    ] = None


class Addressing(Section):
    """Prefixes, and uSIDs of a fabric that already has them."""

    block: Annotated[
        Prefix, Field(description="Locator block of all uSIDs, a /32; by default from 5f00::/16 (RFC 9602).")
    ] = IPv6Network(DEFAULT_BLOCK)
    nic_prefix: Annotated[Prefix, Field(description="Inner and outer addresses of the NICs, a /48.")] = IPv6Network(
        DEFAULT_NIC_PREFIX
    )
    usids: Annotated[
        Mapping[str, Usid],
        Field(description="Switch or host port → the uSID it already has. The others get theirs from the plan."),
    ] = {}


class EvSettings(Section):
    """Entropy values of a queue pair."""

    active: Annotated[
        int,
        Field(ge=1, le=2048, description="EVs a queue pair sprays over; never more than its pair of hosts has paths."),
    ] = 128


class RebootPhases(Section):
    """How long each phase of a switch's reboot takes, wall clock."""

    links_lost: Annotated[Duration, Field(description="Its links are down.")] = 0.3
    tables_empty: Annotated[Duration, Field(description="Links are up again, its SRv6 tables still empty.")] = 0.2


class Reboot(Section):
    """Emulated reboots."""

    cold: Annotated[RebootPhases, Field(description="A cold reboot's phases.")] = RebootPhases()


class Lab(Section):
    """A fabric by its numbers. See docs/labs.md for every key."""

    name: Annotated[
        str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$"), Field(description="Short name of the lab.")
    ]
    description: Annotated[str, Field(max_length=2000, description="What the lab is for.")] = ""
    planes: Annotated[int, Field(ge=1, le=8, description="Independent two-tier Clos fabrics; one NIC port on each.")]
    t0_per_plane: Annotated[int, Field(ge=1, le=512, description="T0 switches of a plane.")]
    t1_per_plane: Annotated[
        int, Field(ge=0, le=256, description="T1 switches of a plane; 0 only with a single T0 per plane.")
    ]
    hosts_per_t0: Annotated[int, Field(ge=1, le=256, description="Hosts on each T0.")]
    link: Annotated[LinkSettings, Field(description="What every link is like.")] = LinkSettings()
    time_scale: Annotated[
        float,
        Field(
            ge=1,
            le=1_000_000,
            description="The emulated rate is link.rate divided by this; 1 ms stands for 1 ms / scale.",
        ),
    ] = 1
    addressing: Annotated[Addressing, Field(description="Prefixes and adopted uSIDs.")] = Addressing()
    absent: Annotated[
        Texts, Field(description="Planes, switches, hosts, ports and links the fabric does not have.")
    ] = ()
    evs: Annotated[EvSettings, Field(description="How a queue pair uses entropy values.")] = EvSettings()
    reboot: Annotated[Reboot, Field(description="How emulated reboots go.")] = Reboot()
    limits: Annotated[Limits, Field(description="Figure of docs/metrics.md → what it must keep to.")] = Field(
        default_factory=dict
    )
    roles: Annotated[Roles, Field(description="Commands that play a role instead of the project's own.")] = Roles()
    rig: Annotated[Rig | None, Field(description="Devices that are the fabric; without it, namespaces are.")] = None

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        from testbed.lab.checks import problems
        from testbed.lab.problems import raise_problems

        raise_problems(problems(self))
        return self

    @cached_property
    def shape(self) -> Shape:
        """Counts and absences; answers by arithmetic, at any size."""
        whole = Shape(self.planes, self.t0_per_plane, self.t1_per_plane, self.hosts_per_t0)
        return Shape(*whole.counts, parse_absent(whole, self.absent)[0])

    @cached_property
    def topology(self) -> Topology:
        """Nodes, ports and links; enumerated when first asked for."""
        return Topology(self.shape)

    @property
    def realised(self) -> Literal["netns", "rig", "front end"]:
        """What its fabric is made of, as results tell it."""
        if self.rig is None:
            return "netns"
        return "front end" if self.rig.front_end else "rig"

    @property
    def emulated_rate(self) -> int | None:
        """bit/s that a link of the realised fabric is shaped to; None where unshaped."""
        return None if self.link.rate is None else max(1, round(self.link.rate / self.time_scale))

    @property
    def queue_bytes(self) -> int | None:
        """Bytes that a shaped port's queue holds; None where unshaped."""
        rate, queue = self.emulated_rate, self.link.queue
        if rate is None:
            return None
        if queue is None:
            return max(round(rate / 8 * DEFAULT_QUEUE_SECONDS), DEFAULT_QUEUE_PACKETS * self.link.mtu)
        return queue.octets_at(rate)

    @property
    def ecn_bytes(self) -> int | None:
        """Bytes in the queue of a port between switches from which on it marks; None where no port does."""
        rate, queue, threshold = self.emulated_rate, self.queue_bytes, self.link.ecn
        if rate is None or queue is None or threshold == "off":
            return None
        if threshold is None:
            return min(queue, max(round(queue * DEFAULT_ECN_SHARE), DEFAULT_ECN_PACKETS * self.link.mtu))
        return threshold.octets_at(rate)

    @classmethod
    def load(cls, path_or_name: str | Path) -> Lab:
        """Read a lab file, or a shipped lab by its bare name (``laptop``).

        Raises:
            LabError: no such file, or the file is wrong; every error of it at once, with file and line.
        """
        from testbed.lab.loader import load

        return load(path_or_name)

    @classmethod
    def parse(cls, text: str, where: str = "<text>") -> Lab:
        """Read a lab from YAML text; ``where`` stands for the file in errors.

        Raises:
            LabError: the text is wrong; every error of it at once.
        """
        from testbed.lab.loader import parse

        return parse(text, where)


def lab_schema() -> dict[str, Any]:
    """The JSON Schema of lab files, as published in labs/lab.schema.json."""
    schema = Lab.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "MRC Testbed lab"}
