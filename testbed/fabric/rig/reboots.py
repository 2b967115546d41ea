"""A switch of a rig reboots for real: what its neighbours see of it, and its tables installed anew."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from testbed.errors import BedError, InfrastructureError, UnhealedError, UnsupportedError
from testbed.fabric.devices import LinkControl
from testbed.fabric.protocols import PhaseSink
from testbed.fabric.work import Reboots
from testbed.lab import Port
from testbed.record import Event, now_ns

if TYPE_CHECKING:
    from testbed.fabric.rig.fabric import RigFabric

_KIND: Final = "cold"
_BOOT_S: Final = 900.0
_LOOK_S: Final = 0.02


def carry_out(fabric: RigFabric, switch: str, kind: str, on_phase: PhaseSink) -> None:
    """See :meth:`testbed.fabric.protocols.Switch.reboot`."""
    if kind != _KIND:
        raise UnsupportedError(f"a rig's switch cannot do a {kind!r} reboot", where=switch, expected=_KIND)
    driver = fabric.rig.drivers[switch]
    reason = fabric.capabilities.reason_against("reboot")
    if reason is not None or not isinstance(driver, Reboots):
        raise UnsupportedError(f"{switch} cannot be rebooted", found=reason or "")
    with _Neighbours(fabric, switch, on_phase) as seen:
        began = now_ns()
        seen.began(began)
        fabric.wardens.lose(switch)
        driver.reboot(fabric.rig.changes)
        try:
            driver.wait_back(_BOOT_S)
            seen.answers(began)
            fabric.holds.hold_again(switch)
            before = now_ns()
            fabric.rig.install(switch)
            fabric.wait_settled({switch, *seen.nodes})
        except InfrastructureError as error:
            raise UnhealedError(f"{switch} did not come back from its reboot", found=str(error)) from error
        seen.require_back()
    on_phase(Event.between("tables", switch, "forwarding", before, now_ns()))


class _Neighbours:
    """Looks at the other ends of a switch's links until they have gone dark and come back, and tells of it."""

    def __init__(self, fabric: RigFabric, switch: str, on_phase: PhaseSink) -> None:
        topology = fabric.lab.topology
        held = set(fabric.holds.ports)
        self._fabric = fabric
        self._switch = switch
        self._on_phase = on_phase
        self._peers = [peer for port in topology.ports(switch) if not {port, (peer := topology.peer(port))} & held]
        self.nodes = sorted({peer.node for peer in self._peers})
        self._began = 0
        self._dark = threading.Event()
        self._back = threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"neighbours-{switch}", daemon=True)
        self._telling = threading.Lock()

    def __enter__(self) -> _Neighbours:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        if self._thread.is_alive():
            self._thread.join()

    def began(self, began_ns: int) -> None:
        """From now on it goes down at any moment."""
        self._began = began_ns
        self._thread.start()

    def answers(self, began_ns: int) -> None:
        """It takes commands again: it has been dark by now, whether anybody saw it or not."""
        self._tell_dark(began_ns)

    def require_back(self) -> None:
        """It forwards again, so its links are back: told now where nobody has seen it."""
        self._tell_back(self._began)

    def _tell_dark(self, before_ns: int) -> None:
        with self._telling:
            if self._dark.is_set():
                return
            self._dark.set()
            for lane, what in (("traffic", "stopped"), ("carrier", "carrier lost")):
                self._on_phase(Event.between(lane, self._switch, what, before_ns, now_ns()))

    def _tell_back(self, before_ns: int) -> None:
        with self._telling:
            if not self._back.is_set():
                self._back.set()
                self._on_phase(Event.between("carrier", self._switch, "carrier back", before_ns, now_ns()))

    def _watch(self) -> None:
        last = self._began
        while not self._leave.is_set() and not self._back.is_set():
            before = now_ns()
            carriers = self._carriers(self._peers)
            if not self._dark.is_set() and carriers and not any(carriers):
                self._tell_dark(self._began)
            elif self._dark.is_set() and carriers and all(carriers):
                self._tell_back(last)
            last = before
            self._leave.wait(_LOOK_S)

    def _carriers(self, peers: Iterable[Port]) -> list[bool]:
        """Whether each has a carrier; nothing where one cannot be asked."""
        try:
            states = {node: self._states(node) for node in {peer.node for peer in peers}}
        except BedError:
            return []
        return [states[peer.node][peer.name] for peer in peers]

    def _states(self, node: str) -> dict[str, bool]:
        made = self._fabric.rig.drivers[node]
        if not isinstance(made, LinkControl):
            return {}
        return {port: state.carrier for port, state in made.ports().items()}
