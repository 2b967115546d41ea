"""``measure(flows, *faults)``: figures of a finished workload, limits that fail a test, results that are kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import pytest

from testbed.errors import UsageError
from testbed.pytest_plugin.outcomes import UNKNOWN

if TYPE_CHECKING:
    from testbed.experiment.measured import Measured
    from testbed.experiment.measurement import ProbesMeasured
    from testbed.experiment.transfers import TransfersMeasured
    from testbed.experiment.voice import VoiceMeasured
    from testbed.faults.scope import FaultScope
    from testbed.lab import Lab
    from testbed.record import Drop
    from testbed.traffic.mrc.transfers import MrcTransfers
    from testbed.traffic.path_probes import PathProbes
    from testbed.traffic.voice.calls import VoiceCalls


def require_results_folder(results: str) -> None:
    """Raise UsageError where ``--results`` cannot be written."""
    from testbed.experiment.run_folder import RunFolder

    try:
        RunFolder.plan(Path(results), "any")
    except UsageError as error:
        error.remedy = "--results DIR"
        raise


class Measure:
    """Measures finished workloads, and fails the test where the lab's limits are not kept."""

    def __init__(self, lab: Lab, item: pytest.Item) -> None:
        self._lab = lab
        self._item = item
        self.taken: list[Measured] = []

    @overload
    def __call__(self, flows: PathProbes, *faults: FaultScope, drops: Sequence[Drop] = ()) -> ProbesMeasured: ...
    @overload
    def __call__(self, flows: MrcTransfers, *faults: FaultScope, drops: Sequence[Drop] = ()) -> TransfersMeasured: ...
    @overload
    def __call__(self, flows: VoiceCalls, *faults: FaultScope, drops: Sequence[Drop] = ()) -> VoiceMeasured: ...
    def __call__(
        self, flows: PathProbes | MrcTransfers | VoiceCalls, *faults: FaultScope, drops: Sequence[Drop] = ()
    ) -> Measured:
        """Every figure of a finished workload, judged by the lab's limits; see :class:`Measured`.

        ``drops``: packets that filter rules dropped whose counters went with them, for the ledger.

        Fails the test when a limit is not kept, when it cannot be known whether it is, and when the machine or its
        clock got in the way of the run.
        """
        from testbed.measure.limits import Outcome

        measured = self._measured(flows, faults, drops)
        self.taken.append(measured)
        self._keep(measured)
        outcomes = {judgement.outcome for judgement in measured.judgements}
        # What the machine decided says nothing about the fabric, neither that a limit is kept nor that it is not.
        if not measured.unknown_because and Outcome.FAIL in outcomes:
            pytest.fail("\n".join(measured.reasons), pytrace=False)
        if measured.unknown_because or Outcome.UNKNOWN in outcomes:
            pytest.fail(UNKNOWN + "\n".join(measured.reasons), pytrace=False)
        return measured

    def _measured(
        self, flows: PathProbes | MrcTransfers | VoiceCalls, faults: Sequence[FaultScope], drops: Sequence[Drop]
    ) -> Measured:
        from testbed.traffic.path_probes import PathProbes

        if isinstance(flows, PathProbes):
            from testbed.experiment.measurement import measure

            return measure(self._lab, flows, faults, drops)
        from testbed.traffic.mrc.transfers import MrcTransfers

        if not isinstance(flows, MrcTransfers):
            from testbed.experiment.voice import measure_voice

            return measure_voice(self._lab, flows, faults, drops)
        from testbed.experiment.transfers import measure_transfers

        return measure_transfers(self._lab, flows, faults, drops)

    def _keep(self, measured: Measured) -> None:
        """Write result, samples and page below ``--results``, where that is given."""
        config = self._item.config
        results = config.getoption("--results")
        if results is None:
            return
        from testbed.experiment.run_folder import RunFolder

        folder = RunFolder.plan(Path(results), self._item.name)
        folder.keep(
            measured,
            self._lab,
            measured.faults,
            [],
            title=self._item.name,
            command=self._command(),
            seeds={"workload": measured.flows.seed},
        )

    def _command(self) -> tuple[str, ...]:
        """What runs this test again from the folder that this run began in."""
        config = self._item.config
        file = os.path.relpath(self._item.path, config.invocation_params.dir)
        _, colons, name = self._item.nodeid.partition("::")
        return (
            "pytest",
            file + colons + name,
            "--lab",
            config.getoption("--lab"),
            "--lab-seed",
            str(config.getoption("--lab-seed")),
        )
