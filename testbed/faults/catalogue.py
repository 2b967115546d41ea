"""The faults there are, as methods that make scopes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address
from pathlib import PurePath

from testbed.errors import UnsupportedError
from testbed.fabric.conditions import Running
from testbed.fabric.protocols import Fabric, Host, Switch
from testbed.faults.journal import HEALED, INJECTED, UNHEALED, Journal
from testbed.faults.nemesis import Limits, nemesis
from testbed.faults.parameters import Value
from testbed.faults.permitted import Level, level_of, require
from testbed.faults.playing import Playing
from testbed.faults.schedule import Schedule
from testbed.faults.scope import FaultScope
from testbed.faults.spec import FaultSpec
from testbed.lab import Link, Port
from testbed.lab.quantities import parse_time
from testbed.live.views import LIVE
from testbed.record import Event


class Faults:
    """Faults on one fabric; each is a scope. What happened is kept in ``history``.

    Times are seconds or text with a unit, rates bit/s or text. Every method raises LabError for names the lab does not
    have, UsageError for parameters that make no sense, and UnsupportedError with the reason for what the fabric cannot
    do; nothing is changed then. The kinds and their events are those of ``docs/faults.md``.

    Args:
        fabric: where.
        journal: where each is written down before it is injected; the user's own by default.
        instead: given a schedule that is to be played, which one is.
        allowed: how far faults may go; beyond, NotAllowedError is raised.
    """

    def __init__(
        self,
        fabric: Fabric,
        journal: Journal | None = None,
        *,
        instead: Callable[[Schedule], Schedule] = lambda schedule: schedule,
        allowed: Level = Level.POWER,
    ) -> None:
        self._fabric = fabric
        self._instead = instead
        self._allowed = allowed
        self._journal = Journal() if journal is None else journal
        self._entries: dict[FaultScope, str] = {}
        self.history: list[FaultScope] = []

    @property
    def unhealed(self) -> list[str]:
        """Faults that could not be undone, with the reason."""
        return [f"{scope.name}: {scope.error}" for scope in self.history if scope.unhealed]

    def make(self, spec: FaultSpec, process: Running | None = None) -> FaultScope:
        """The scope of a fault in its declarative form; ``process``: the handle of a target that is one."""
        checked = spec.checked()
        kind = checked.about
        require(level_of(kind), self._allowed, f"{kind.name} of {checked.target}")
        reason = self._fabric.capabilities.reason_against(kind.needs)
        if reason is not None:
            raise UnsupportedError(f"this fabric cannot do {kind.name}: it lacks {kind.needs}", found=reason)
        making = kind.make(self._fabric, checked.target, checked.parameters, process)
        return FaultScope(
            making.name,
            checked.target,
            making.operation,
            dies=making.hits or kind.hits,
            revives=making.passes or kind.passes,
            kind=making.kind,
            spec=checked,
            outage=making.kills is not None,
            kills=making.kills,
            counted=making.counted,
            heals_s=making.heals_s,
            on_begin=self._begin,
            on_end=self._end,
        )

    def _begin(self, scope: FaultScope) -> None:
        assert scope.spec is not None
        fabric = self._fabric
        entry = self._journal.intend(fabric.name, fabric.instance, scope.name, scope.spec.as_dict())
        self._entries[scope] = entry
        LIVE.fault_begins(scope, scope.kind, scope.subject)

        def heard(event: Event) -> None:
            if scope.observed is event:
                self._journal.note(entry, INJECTED, event.t_ns)

        scope.listen(heard)

    def _end(self, scope: FaultScope) -> None:
        LIVE.fault_ends(scope)
        self.history.append(scope)
        entry = self._entries.pop(scope)
        if scope.unhealed:
            self._journal.note(entry, UNHEALED, reason=str(scope.error))
        else:
            healed = scope.healed
            self._journal.note(entry, HEALED, None if healed is None else healed.t_ns, str(scope.error or ""))

    def _made(self, kind: str, target: str, /, **given: Value) -> FaultScope:
        return self.make(FaultSpec(kind, target, {name: value for name, value in given.items() if value is not None}))

    # -- links and ports ----------------------------------------------------------------------------------------------

    def link_down(self, link: Link | str) -> FaultScope:
        """A link without carrier until the scope is left."""
        return self._made("link_down", _name(link))

    def one_way_down(self, link: Link | str, direction: str = "up") -> FaultScope:
        """Nothing crosses a link ``up``, away from the hosts, or ``down``; its carrier stays."""
        return self._made("one_way_down", _name(link), direction=direction)

    def flap(
        self,
        link: Link | str,
        *,
        period: float | str | None = None,
        per_minute: float | None = None,
        duty: float = 0.5,
        count: int | None = None,
    ) -> FaultScope:
        """A link goes down and up, for ``duty`` of each period down, ``count`` times or until the scope is left."""
        return self._made("flap", _name(link), period=period, per_minute=per_minute, duty=duty, count=count)

    def nic_port_down(self, port: Port | str) -> FaultScope:
        """A port of a NIC is down, from the host's end."""
        return self._made("nic_port_down", str(port))

    def transceiver_flap(self, host: Host | str, down: float | str = 0.1) -> FaultScope:
        """All ports of a NIC go down at once, and up again after ``down``."""
        return self._made("transceiver_flap", _name(host), down=down)

    def rate(self, place: Link | Port | str, rate: float | str, *, direction: str | None = None) -> FaultScope:
        """What leaves a port, or crosses a link in a direction, is shaped to a lower rate."""
        return self._made("rate", _name(place), rate=rate, direction=direction)

    def delay(
        self,
        place: Link | Port | str,
        delay: float | str,
        *,
        jitter: float | str | None = None,
        direction: str | None = None,
    ) -> FaultScope:
        """What leaves a port, or crosses a link in a direction, is late."""
        return self._made("delay", _name(place), delay=delay, jitter=jitter, direction=direction)

    # -- packets ------------------------------------------------------------------------------------------------------

    def loss(
        self,
        place: Link | Port | str,
        *,
        share: float | str | None = None,
        every: int | None = None,
        offset: int | None = None,
        packets: Sequence[int] | None = None,
        period: int | None = None,
        direction: str | None = None,
        usid: str | None = None,
        ev: str | None = None,
    ) -> FaultScope:
        """Packets are lost: all of them, or a share, or every n-th, or those of given numbers."""
        return self._made(
            "loss",
            _name(place),
            **_chosen(share, every, offset, packets, period),
            direction=direction,
            usid=usid,
            ev=ev,
        )

    def corruption(
        self,
        place: Link | Port | str,
        *,
        mask: str = "ff",
        at: int = 48,
        share: float | str | None = None,
        every: int | None = None,
        offset: int | None = None,
        packets: Sequence[int] | None = None,
        period: int | None = None,
        direction: str | None = None,
        usid: str | None = None,
        ev: str | None = None,
    ) -> FaultScope:
        """Bytes ``at`` so many behind the outer header are XORed with ``mask``; no checksum is corrected."""
        return self._made(
            "corruption",
            _name(place),
            mask=mask,
            at=at,
            **_chosen(share, every, offset, packets, period),
            direction=direction,
            usid=usid,
            ev=ev,
        )

    def duplication(
        self,
        place: Link | Port | str,
        *,
        share: float | str | None = None,
        every: int | None = None,
        offset: int | None = None,
        packets: Sequence[int] | None = None,
        period: int | None = None,
        direction: str | None = None,
        usid: str | None = None,
        ev: str | None = None,
    ) -> FaultScope:
        """Packets are sent twice."""
        return self._made(
            "duplication",
            _name(place),
            **_chosen(share, every, offset, packets, period),
            direction=direction,
            usid=usid,
            ev=ev,
        )

    def ecn_mark(
        self,
        place: Link | Port | str,
        *,
        share: float | str | None = None,
        every: int | None = None,
        offset: int | None = None,
        packets: Sequence[int] | None = None,
        period: int | None = None,
        direction: str | None = None,
        usid: str | None = None,
        ev: str | None = None,
    ) -> FaultScope:
        """ECN-capable packets are marked as having met congestion."""
        return self._made(
            "ecn_mark",
            _name(place),
            **_chosen(share, every, offset, packets, period),
            direction=direction,
            usid=usid,
            ev=ev,
        )

    # -- switches -----------------------------------------------------------------------------------------------------

    def blackhole(self, switch: Switch | str, usid: str) -> FaultScope:
        """A switch has no route for the uSID of a neighbour, of a host's port below it, or its own."""
        return self._made("blackhole", _name(switch), usid=usid)

    def misroute(self, switch: Switch | str, usid: str, port: Port | str) -> FaultScope:
        """A switch sends what is for a uSID out by a wrong port."""
        return self._made("misroute", _name(switch), usid=usid, port=str(port))

    def frozen(self, switch: Switch | str) -> FaultScope:
        """A switch forwards nothing; links and control stay up."""
        return self._made("frozen", _name(switch))

    def reboot(self, switch: Switch | str, kind: str = "cold") -> FaultScope:
        """A switch reboot. It takes as long as the lab says (``reboot:``); leaving the scope early cuts it short."""
        return self._made("reboot", _name(switch), kind=kind)

    def power_loss(self, switch: Switch | str) -> FaultScope:
        """A switch is dark until the scope is left, which then takes as long as it boots."""
        return self._made("power_loss", _name(switch))

    # -- processes ----------------------------------------------------------------------------------------------------

    def kill(self, process: Running | str) -> FaultScope:
        """A process dies (SIGKILL) and stays dead."""
        return self._of_process("kill", process)

    def pause(self, process: Running | str) -> FaultScope:
        """A process does not run (SIGSTOP) until the scope is left."""
        return self._of_process("pause", process)

    def restart(self, process: Running | str, down: float | str = 0.001) -> FaultScope:
        """A process of ``node.popen`` is ended and started again, after ``down`` at least."""
        return self._of_process("restart", process, down=down)

    # -- addresses ----------------------------------------------------------------------------------------------------

    def move_address(self, address: IPv6Address | str, host: Host | str) -> FaultScope:
        """Packets to an address that hosts share go to another of them; its routes are this process's own."""
        return self._made("move_address", str(address), host=_name(host))

    # -- many ---------------------------------------------------------------------------------------------------------

    def play(self, schedule: Schedule | str | os.PathLike[str]) -> Playing:
        """A schedule, or the one in a file, from its start when the scope is entered. See ``docs/faults.md``."""
        named = schedule if isinstance(schedule, Schedule) else Schedule.load(os.fspath(schedule))
        return Playing(self._instead(named), self.make)

    def nemesis(
        self,
        length: float | str,
        *,
        seed: int = 0,
        weights: Mapping[str, float] | None = None,
        limits: Limits | None = None,
    ) -> Playing:
        """A random schedule of what this fabric can do, drawn from ``seed``; see :func:`nemesis.nemesis`."""
        length_s = parse_time(length) if isinstance(length, str) else length
        fabric = self._fabric
        drawn = nemesis(
            fabric.lab, seed=seed, length_s=length_s, weights=weights, limits=limits, capabilities=fabric.capabilities
        )
        return self.play(drawn)

    def _of_process(self, kind: str, process: Running | str, **given: Value) -> FaultScope:
        if isinstance(process, str):
            return self._made(kind, process, **given)
        target = f"{process.node}/{PurePath(process.argv[0]).name}"
        return self.make(FaultSpec(kind, target, given), process)


def _name(target: Switch | Host | Link | Port | str) -> str:
    return str(target) if isinstance(target, str | Port) else target.name


def _chosen(
    share: float | str | None,
    every: int | None,
    offset: int | None,
    packets: Sequence[int] | None,
    period: int | None,
) -> dict[str, Value]:
    listed = None if packets is None else list(packets)
    return {"share": share, "every": every, "offset": offset, "packets": listed, "period": period}
