"""WRITE packets as a correct requester would send them, and as rows that a test may spoil."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from testbed.mrc.codes import Opcode
from testbed.mrc.memory import Access, Memory, MemoryRegion
from testbed.mrc.responder import Responder
from testbed.mrc.rows import WRITE_IN, Dscp, Ecn, Rows
from testbed.mrc.settings import Settings

#: Payload begins here in a test's frames.
AT = 4
PMTU = 256
WRITES = Access.LOCAL_WRITE | Access.REMOTE_WRITE


def packets(
    region: MemoryRegion,
    messages: Sequence[tuple[int, int | None]],
    *,
    first_psn: int = 0,
    pmtu: int = PMTU,
) -> Rows:
    """WRITE_IN rows, in order of PSN, of messages (bytes, immediate or None) that lie one behind the other in memory.

    Each packet's EV is its place modulo 16, its stamp and frame are its place.
    """
    rows: list[Rows] = []
    psn, va, immediates = first_psn, region.va, 0
    for msn, (size, imm) in enumerate(messages):
        count = max(1, -(-size // pmtu))
        part = np.zeros(count, WRITE_IN)
        position = np.arange(count)
        part["psn"] = (psn + position) & 0xFFFFFF
        part["msn"], part["rqmsn"] = msn & 0xFFFF, immediates & 0xFFFF
        part["va"] = np.uint64(va) + position.astype(np.uint64) * np.uint64(pmtu)
        part["rkey"], part["dma_length"] = region.rkey, size
        part["length"] = pmtu
        part["length"][-1] = size - (count - 1) * pmtu
        part["opcode"] = Opcode.WRITE_MIDDLE
        part["opcode"][0] = Opcode.WRITE_FIRST
        part["opcode"][-1] = Opcode.WRITE_LAST if imm is None else Opcode.WRITE_LAST_IMM
        if count == 1:
            part["opcode"] = Opcode.WRITE_ONLY if imm is None else Opcode.WRITE_ONLY_IMM
        if imm is not None:
            part["imm"][-1] = imm
            immediates += 1
        rows.append(part)
        psn += count
        va += size
    out = np.concatenate(rows)
    place = np.arange(out.size)
    out["ev"], out["stamp"], out["frame"], out["at"] = place % 16, place & 0xFFFF, place, AT
    out["dscp"], out["ecn"] = Dscp.TRIMMABLE, Ecn.ECT_0
    return out


def payloads(count: int, pmtu: int = PMTU) -> npt.NDArray[np.uint8]:
    """Frames whose payloads differ from each other and hold no zeros."""
    return np.random.default_rng(count).integers(1, 256, (count, AT + pmtu), np.uint8)


class Receiver:
    """A responder, its memory of ``size`` bytes, and all that it answered."""

    def __init__(self, size: int = 1 << 16, *, first_psn: int = 0, qp: int = 3, **settings: Any) -> None:
        self.memory = Memory()
        self.region = self.memory.register(np.zeros(size, np.uint8), WRITES, va=0x10000)
        self.settings = Settings(**{"pmtu": PMTU, "mpr": 1, **settings})
        self.responder = Responder(qp, 77, first_psn, self.memory, self.settings)

    def take(self, rows: Rows, frames: npt.NDArray[np.uint8] | None = None) -> tuple[list[bool], list[int]]:
        """One batch: which rows were to be placed, and the numbers of the messages that are complete."""
        mask = self.responder.accept(rows)
        if frames is not None:
            assert self.memory.place(rows[mask], frames).all()
        return mask.tolist(), self.responder.finish(0)["number"].tolist()

    def out(self) -> tuple[Rows, Rows, Rows]:
        """SACKs, NACKs and ACKs."""
        return self.responder.outbox(0)
