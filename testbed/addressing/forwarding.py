"""What the switches' static tables do with a destination, uSID by uSID: the way back from address to path."""

from __future__ import annotations

from ipaddress import IPv6Address

from testbed.addressing.paths import Path, Paths, switch_name
from testbed.errors import LabError
from testbed.lab.shape import NodeId, Tier
from testbed.lab.usids import ORDINARY


def walk(paths: Paths, plane: int, src: int, address: IPv6Address) -> Path:
    """Where a destination of the lab's block leads that a host sends into a plane.

    Raises:
        LabError: some node drops it; the text names the node and the uSID it does not know.
    """
    usids = [int(address) >> shift & 0xFFFF for shift in range(80, -1, -16)]
    t0 = paths.t0_of(src)
    if usids[0] != paths.usids.t0(plane, t0):
        raise _dropped(f"h{src}", address, usids[0])
    switches = [NodeId(Tier.T0, plane, t0)]
    for position, usid in enumerate(usids[1:], 2):
        following = _next(paths, plane, switches[-1], usid)
        if isinstance(following, NodeId):
            switches.append(following)
        elif following is None:
            raise _dropped(switch_name(switches[-1]), address, usid)
        else:
            rest = usids[position:]
            if any(rest) and (rest[0] != ORDINARY or any(rest[1:])):
                raise _dropped(f"h{following}", address, rest[0])
            return paths.over(plane, src, switches, following)
    last = switch_name(switches[-1])
    raise LabError(f"{address} ends at {last}, a switch", found="six uSIDs of switches", expected="a host port's last")


def _next(paths: Paths, plane: int, here: NodeId, usid: int) -> NodeId | int | None:
    """What a switch's table leads to: a switch, a host's number, or nothing."""
    shape, usids = paths.shape, paths.usids
    if here.tier is Tier.T1:
        t0 = usids.find_t0(plane, usid)
        return NodeId(Tier.T0, plane, t0) if t0 is not None and shape.has_uplink(plane, t0, here.number) else None
    t1 = usids.find_t1(plane, usid)
    if t1 is not None and shape.has_uplink(plane, here.number, t1):
        return NodeId(Tier.T1, plane, t1)
    host = usids.find_port(plane, here.number, usid)
    return host if host is not None and shape.has_access(plane, host) else None


def _dropped(node: str, address: IPv6Address, usid: int) -> LabError:
    return LabError(f"{node} drops {address}", found=f"uSID {usid:#06x}", expected=f"a uSID that {node} knows")
