"""Any traffic over any network that leaves one plane usable: every message exactly once, memory exact, no error."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import Status
from tests.unit.mrc.simnet import MS, PMTU, REGION, Network, Path

EVS, PLANES = 16, 4
HOSTS = st.integers(0, 1)
LENGTHS = st.one_of(
    st.integers(0, 3 * PMTU), st.sampled_from([0, 1, PMTU - 1, PMTU, PMTU + 1, 64 * PMTU, 150 * PMTU + 7])
)
CHANCES = st.sampled_from([0.0, 0.05, 0.3, 1.0])
PSNS = st.sampled_from([0, 1, 0xFFFFFF, 0xFFFFF0, 0xFFFF80, 0x7FFFF0])


class Model(RuleBasedStateMachine):
    """Plane 0 is spared the worst: it loses a fifth of its packets at most, at both ends and both ways."""

    @initialize(psn=PSNS, seed=st.integers(0, 1 << 16), qps=st.integers(1, 3))
    def begin(self, psn: int, seed: int, qps: int) -> None:
        self.network = Network(evs=EVS, planes=PLANES, seed=seed)
        pairs = [self.network.connect(psn=psn) for _ in range(qps)]
        self.qps: list[list[QueuePair]] = [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
        self.used = [0, 0]
        self.expected = [np.zeros(REGION, "u1"), np.zeros(REGION, "u1")]
        self.posted: list[list[int]] = [[], []]
        self.imms: dict[tuple[int, int], list[int]] = {}
        self.packets = 0
        self.rng = np.random.default_rng(seed)

    def _post(self, host: int, qp: int, length: int, imm: bool) -> None:
        network, other = self.network, 1 - host
        if self.used[other] + length > REGION:
            return
        at, self.used[other] = self.used[other], self.used[other] + length
        source = int(self.rng.integers(REGION - length + 1))
        wr_id = len(self.posted[host])
        pair = self.qps[host][qp % len(self.qps[host])]
        network.post(host, pair, wr_id, length, at, wr_id if imm else None, source)
        self.expected[other][at : at + length] = network.hosts[host].source[source : source + length]
        self.posted[host].append(pair.index)
        self.packets += max(1, -(-length // PMTU))
        if imm:
            self.imms.setdefault((other, pair.index), []).append(wr_id)

    @rule(host=HOSTS, qp=st.integers(0, 2), length=LENGTHS, imm=st.booleans())
    def write(self, host: int, qp: int, length: int, imm: bool) -> None:
        self._post(host, qp, length, imm)

    @rule(host=HOSTS, qp=st.integers(0, 2), count=st.integers(2, 80))
    def many_small_writes(self, host: int, qp: int, count: int) -> None:
        for n in range(count):
            self._post(host, qp, 1 + n % 9, n % 5 == 0)

    @rule(
        host=HOSTS,
        ev=st.integers(0, EVS - 1),
        drop=CHANCES,
        duplicate=CHANCES,
        trim=CHANCES,
        mark=CHANCES,
        jitter=st.sampled_from([0, MS, 8 * MS]),
    )
    def path_changes(
        self, host: int, ev: int, drop: float, duplicate: float, trim: float, mark: float, jitter: int
    ) -> None:
        if ev % PLANES == 0:
            drop, trim = min(drop, 0.2), min(trim, 0.3)
        self.network.paths[host, 1 - host, ev] = Path(drop, mark, trim, duplicate, 3 * MS, jitter)

    @rule(plane=st.integers(1, PLANES - 1))
    def plane_dies(self, plane: int) -> None:
        self.network.plane_dies(plane)

    @rule(host=HOSTS, plane=st.integers(1, PLANES - 1), up=st.booleans())
    def port(self, host: int, plane: int, up: bool) -> None:
        self.network.port(host, plane, up)

    @rule()
    def heal(self) -> None:
        self.network.heal()

    @rule(duration=st.sampled_from([MS, 5 * MS, 40 * MS]))
    def time_passes(self, duration: int) -> None:
        self.network.run_for(duration)

    @invariant()
    def no_error(self) -> None:
        if hasattr(self, "network"):
            assert not self.network.errors(), self.network.state()

    def teardown(self) -> None:
        if not hasattr(self, "network"):
            return
        network = self.network
        network.run(network.quiet, 60_000 * MS)
        assert not network.errors()
        for host, mine in enumerate(network.hosts):
            ended = [wr_id for wr_id, status, _, _ in mine.completions if status == Status.SUCCESS]
            assert sorted(ended) == list(range(len(self.posted[host])))
            assert np.array_equal(mine.sink.data, self.expected[host])
            arrived = {qp: sorted(numbers) for qp, numbers in mine.messages.items()}
            sent = {qp: list(range(self.posted[1 - host].count(qp))) for qp in set(self.posted[1 - host])}
            assert arrived == sent
            for pair in self.qps[host]:
                got = [imm for qp, imm in mine.immediates if qp == pair.index]
                assert got == self.imms.get((host, pair.index), [])
        assert network.placed == self.packets
        network.check()
        assert all(
            qp.connection is not None and qp.connection.requester.in_flight == 0
            for host in network.hosts
            for qp in host.engine._qps.values()
        )


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
