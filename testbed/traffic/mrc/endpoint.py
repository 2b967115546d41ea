"""One host's end of all its flows: NIC, memory, queue pairs, and the program that uses them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from testbed.errors import InfrastructureError
from testbed.mrc.datapath.nic import SoftNic
from testbed.mrc.memory import Access
from testbed.mrc.qp import QpAttributes
from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import Rows
from testbed.traffic.mrc.content import Content
from testbed.traffic.mrc.plan import Flow, Program, TransferPlan
from testbed.traffic.mrc.programs.all_reduce import AllReduce
from testbed.traffic.mrc.programs.all_to_all import AllToAll
from testbed.traffic.mrc.programs.base import Bytes, Inbound, Outbound, ProgramRun
from testbed.traffic.mrc.programs.stream import Stream


class Endpoint:
    """Everything a transfer agent holds.

    Args:
        plan: what it is to do.
        nic: on which NIC.
    """

    def __init__(self, plan: TransferPlan, nic: SoftNic) -> None:
        self._plan = plan
        self.nic = nic
        self._content = Content(plan.seed, plan.message)
        nic.register(self._content.table, Access.LOCAL_WRITE)
        self._vector = np.zeros((max(plan.ranks, 1), max(plan.message // 8, 1)), np.uint64)
        if plan.program == Program.ALL_REDUCE:
            nic.register(self._vector.view(np.uint8).reshape(-1), Access.LOCAL_WRITE)
        self._inbound: dict[int, Inbound] = {}
        self._outbound: dict[int, Outbound] = {}
        self._qps = [self._make_qp(flow) for flow in plan.flows]
        self._qp_of = {flow.number: qp for flow, qp in zip(plan.flows, self._qps, strict=True)}
        self._program: ProgramRun | None = None
        nic.on_messages(self._on_messages)

    def _make_qp(self, flow: Flow) -> QueuePair:
        if flow.sends:
            return self.nic.create_qp(flow.peer, flow=flow.number)
        plan = self._plan
        memory = np.zeros(plan.depth * plan.message, np.uint8)
        region = self.nic.register(memory, Access.LOCAL_WRITE | Access.REMOTE_WRITE)
        qp = self.nic.create_qp(flow.peer, regions=(region,), flow=flow.number)
        self._inbound[qp.index] = Inbound(flow.number, memory.reshape(plan.depth, -1), region.va)
        return qp

    def attributes(self) -> list[dict[str, Any]]:
        """What each flow's other end must know, in the order of the plan: number and attributes."""
        return [{"flow": flow, "attributes": qp.attributes.to_json()} for flow, qp in self._qp_of.items()]

    def connect(self, others: dict[int, str]) -> None:
        """Connect every flow with its other end's attributes, by flow number. Raises UsageError for wrong ones."""
        plan = self._plan
        for qp, flow in zip(self._qps, plan.flows, strict=True):
            remote = QpAttributes.from_json(others[flow.number])
            self.nic.connect(qp, remote, flow=flow.number)
            if flow.sends:
                if len(remote.regions) != 1 or remote.regions[0].length != plan.depth * plan.message:
                    raise InfrastructureError(
                        "the other end of a flow has no memory for it",
                        where=f"{plan.nic.host}, flow {flow.number} to {flow.peer}",
                        found=str(remote.regions),
                        expected=f"one region of {plan.depth} x {plan.message} bytes",
                    )
                region = remote.regions[0]
                slots = [region.va + slot * plan.message for slot in range(plan.depth)]
                self._outbound[qp.index] = Outbound(flow.number, slots, region.rkey)
        self._program = self._make_program()

    def _make_program(self) -> ProgramRun:
        plan, outbound, inbound = self._plan, list(self._outbound.values()), list(self._inbound.values())
        if plan.program == Program.ALL_TO_ALL:
            return AllToAll(
                self,
                self._content,
                outbound,
                inbound,
                count=plan.count,
                immediate=plan.immediate,
                verify=plan.verify,
            )
        if plan.program == Program.ALL_REDUCE:
            return AllReduce(
                self,
                seed=plan.seed,
                message=plan.message,
                rank=plan.rank,
                ranks=plan.ranks,
                outbound=outbound[0],
                inbound=inbound[0],
                count=plan.count,
                vector=self._vector,
            )
        return Stream(
            self,
            self._content,
            outbound,
            count=plan.count,
            immediate=plan.immediate,
            verify=plan.verify,
        )

    def post(self, flow: int, source: Bytes, remote: int, rkey: int, immediate: int | None, number: int) -> None:
        """Post a WRITE; see :class:`testbed.traffic.mrc.programs.base.Poster`."""
        self.nic.post_write(self._qp_of[flow], number, source.ctypes.data, len(source), remote, rkey, immediate)

    def _on_messages(self, rows: Rows) -> None:
        assert self._program is not None
        for row in rows:
            inbound = self._inbound.get(int(row["qp"]))
            if inbound is None:
                continue
            immediate = int(row["imm"]) if row["has_imm"] else None
            self._program.message(inbound, int(row["number"]), int(row["va"]), int(row["bytes"]), immediate)
            inbound.received += 1

    def work(self, wait_ns: int) -> None:
        """One round of the NIC, then post what may be posted."""
        assert self._program is not None
        self.nic.run_once(wait_ns)
        now_ns = time.monotonic_ns()
        for row in self.nic.completions():
            qp = int(row["qp"])
            if row["kind"] == 0:
                self._outbound[qp].ended(int(row["wr_id"]), int(row["status"]), now_ns)
            elif (inbound := self._inbound.get(qp)) is not None:
                self._take_immediate(inbound, int(row["imm"]))
        self._program.step(now_ns)

    def _take_immediate(self, inbound: Inbound, immediate: int) -> None:
        """Receive completions come in order, each once, and name their message."""
        if immediate != inbound.immediates & 0xFFFFFFFF:
            inbound.complain(f"completion of immediate {immediate} came where {inbound.immediates} was due")
        inbound.immediates += 1

    def stop(self) -> None:
        """Begin nothing new."""
        if self._program is not None:
            self._program.stop()

    @property
    def finished(self) -> bool:
        """Whether everything asked for has been sent and has ended."""
        return self._program is not None and self._program.finished

    def progress(self) -> dict[str, int]:
        """Counts for whoever watches."""
        return {
            "messages_completed": sum(out.completed for out in self._outbound.values()),
            "messages_failed": sum(sum(out.failed.values()) for out in self._outbound.values()),
            "messages_received": sum(one.received for one in self._inbound.values()),
            "messages_wrong": sum(one.wrong for one in self._inbound.values()),
        }

    def report(self) -> dict[str, Any]:
        """What became of every flow, and what only the program knows."""
        flows = [
            {
                "flow": out.flow,
                "posted": out.posted,
                "completed": out.completed,
                "failed": out.failed,
                "outstanding": out.outstanding,
                "times_ns": out.times_ns.to_list(),
            }
            for out in self._outbound.values()
        ]
        received = [
            {
                "flow": one.flow,
                "received": one.received,
                "immediates": one.immediates,
                "wrong": one.wrong,
                "mismatches": one.mismatches,
            }
            for one in self._inbound.values()
        ]
        program = {} if self._program is None else self._program.report()
        sends_to = {flow.peer for flow in self._plan.flows if flow.sends}
        round_trips = [ns for peer, ns in self.nic.engine.base_rtts_ns().items() if peer in sends_to]
        return {
            "host": self._plan.nic.host,
            "sent": flows,
            "received": received,
            "program": program,
            "base_rtt_ns": min(round_trips, default=None),
        }
