"""Hostile packets into a transfer under way, by raw sockets of a third host and of the hosts of both NICs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle, islice

from testbed.kernel import inside, open_sender
from testbed.mrc.codes import Syndrome
from testbed.mrc.datapath.nic import SoftNic
from testbed.mrc.datapath.outlet import Outlet
from testbed.mrc.datapath.plan import ADDRESS_BYTES, NicPlan, packed_address
from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import Dscp
from tests.fuzz import packets as wire
from tests.netns.mrc.ring_run import Batch

_NUMBERS = wire.BY_NAME
#: No region holds it, and with any length it ends beyond 64 bits.
_NOWHERE = (1 << 64) - 8
_ALL_PORTS = 0xFFFFFFFF


class Attacker:
    """Sends to one NIC, in the name of its peer, from a host's namespace.

    Attributes:
        sent: packets by the counter of the victim that is to show them; "" where several may.
    """

    def __init__(self, host: NicPlan, victim: SoftNic, qp: QueuePair, undo: ExitStack) -> None:
        self.sent: dict[str, int] = {}
        self._victim, self._qp = victim, qp
        (paths,) = (peer.destinations for peer in host.peers if peer.name == victim.plan.host)
        octets = bytes.fromhex(paths)
        self._outer = cycle(octets[at : at + ADDRESS_BYTES] for at in range(0, len(octets), ADDRESS_BYTES))
        self._local = packed_address(victim.plan.address, "victim")
        self._peer = packed_address(qp.peer.address, "peer")
        self._host = host
        with inside(host.netns_fd, host.host):
            self._outlet = Outlet(open_sender(host.host))
        undo.callback(self._outlet.socket.close)

    @property
    def refused(self) -> int:
        """Packets that the kernel did not send."""
        return sum(self._outlet.refused.values())

    def round(self) -> None:
        """One packet of each kind, as things are at the victim now."""
        made = list(self._packets())
        outer = list(islice(self._outer, len(made)))
        packets = [packet[:24] + to + packet[40:] for (_, packet), to in zip(made, outer, strict=True)]
        if not Batch(packets, outer).through(self._outlet):
            self._outlet.drop()
        for name, _ in made:
            self.sent[name] = self.sent.get(name, 0) + 1

    def _packets(self) -> Iterator[tuple[str, bytes]]:
        connection = self._qp.connection
        assert connection is not None
        window, queue = connection.requester._window, connection.requester._queue
        cack = connection.responder.cack
        write = {"RETH.va": _NOWHERE, "RETH.rkey": 0x1234, "RETH.dma_length": 256, "METH.msn": 1}
        yield "mrc_rx_unknown_opcode", self._made(0x11)
        yield "mrc_rx_unknown_qp", self._made(_NUMBERS["WRITE_ONLY"], write | {"BTH.dqp": 0xFFFFF0})
        yield "mrc_rx_foreign", self._made(_NUMBERS["WRITE_ONLY"], write, source=b"\xfd" + bytes(15))
        yield "rx_icrc_encapsulated", self._made(_NUMBERS["WRITE_ONLY"], write)[:-1] + b"?"
        yield "mrc_rx_malformed", self._made(_NUMBERS["SACK"], after=bytes(8))
        yield "duplicate_request", self._made(_NUMBERS["WRITE_ONLY"], write | {"BTH.psn": cack - 3})
        yield "mrc_psn_oor_window", self._made(_NUMBERS["WRITE_MIDDLE"], write | {"BTH.psn": cack + 50_000})
        yield "mrc_wrong_sacks", self._made(_NUMBERS["SACK"], {"SETH.cack_psn": window.next + 60_000, "SETH.m": 2})
        many = {"SETH.cack_psn": window.una - 1, "CC_STATE.rcvd_bytes": 0x400000 + (window.payload >> 8)}
        yield "mrc_wrong_sacks", self._made(_NUMBERS["SACK"], many | {"SETH.port_state": 0xFF})
        yield "", self._made(_NUMBERS["SACK"], {"SETH.cack_psn": window.una - 1, "SETH.port_state": 0xFF})
        stale = int(window.stamp[window.una & window.mask]) ^ 0x8000
        nack = {"NETH.nack_psn": window.una, "NETH.tx_timestamp": stale, "NETH.reason": 0x19}
        yield "mrc_stale_nacks", self._made(_NUMBERS["NACK"], nack)
        ack = {"AETH.syndrome": Syndrome.ACK, "AETH.msn": queue.posted + 60_000}
        yield "mrc_wrong_acks", self._made(_NUMBERS["ACK"], ack)
        yield "mrc_wrong_acks", self._made(_NUMBERS["ACK"], ack | {"AETH.syndrome": Syndrome.NAK_REMOTE_ACCESS})
        update = {"ERTH.op": 0, "ERTH.port_status_mask": _ALL_PORTS, "BTH.psn": 7}
        yield "mrc_wrong_port_states", self._made(_NUMBERS["ENDPOINT_REQUEST"], update)
        yield "", self._made(_NUMBERS["ENDPOINT_REQUEST"], {"ERTH.op": 3})
        yield "", self._made(_NUMBERS["ENDPOINT_RESPONSE"], {"EETH.op": 1})
        yield "mrc_probes_received", self._made(_NUMBERS["PROBE"])

    def _made(
        self, opcode: int, fields: dict[str, int] | None = None, *, source: bytes | None = None, after: bytes = b""
    ) -> bytes:
        packet = wire.bare(opcode, source or self._peer, self._local, 0x10001, bytes(256))
        if opcode not in wire.WRITES:
            packet = packet[: wire.layout(opcode).header_bytes] + bytes(4)
        for name, value in ({"BTH.dqp": self._qp.attributes.qpn} | (fields or {})).items():
            wire.put(packet, name, value)
        packet += after
        wire.with_lengths(packet)
        wire.with_dscp(packet, Dscp.CONTROL, 0)
        wire.with_icrc(packet)
        return bytes(packet)
