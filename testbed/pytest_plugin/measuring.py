"""``measure(flows, *faults)``: figures of a finished workload, limits that fail a test, results that are kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import pytest

from testbed.errors import UsageError
from testbed.pytest_plugin import exporting, recording
from testbed.pytest_plugin.outcomes import unknown

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
    def __call__(
        self, flows: PathProbes, *faults: FaultScope, drops: Sequence[Drop] = (), allow_unexplained: bool = False
    ) -> ProbesMeasured: ...
    @overload
    def __call__(
        self, flows: MrcTransfers, *faults: FaultScope, drops: Sequence[Drop] = (), allow_unexplained: bool = False
    ) -> TransfersMeasured: ...
    @overload
    def __call__(
        self, flows: VoiceCalls, *faults: FaultScope, drops: Sequence[Drop] = (), allow_unexplained: bool = False
    ) -> VoiceMeasured: ...
    def __call__(
        self,
        flows: PathProbes | MrcTransfers | VoiceCalls,
        *faults: FaultScope,
        drops: Sequence[Drop] = (),
        allow_unexplained: bool = False,
    ) -> Measured:
        """Every figure of a finished workload, judged by the lab's limits; see :class:`Measured`.

        Args:
            flows: the workload.
            faults: what was done meanwhile.
            drops: packets that filter rules dropped whose counters went with them, for the ledger.
            allow_unexplained: leave packets of which the ledger knows nothing to the test.

        Fails the test when a limit is not kept, when packets are unexplained, when it cannot be known whether a limit
        is kept, and when the machine or its clock got in the way of the run.
        """
        from testbed.measure.limits import Outcome

        measured = self._taken(flows, faults, drops)
        outcomes = {judgement.outcome for judgement in measured.judgements}
        unexplained = [] if allow_unexplained or measured.ledger.unknown else measured.accounts.contradictions
        # What the machine decided says nothing about the fabric, neither that a limit is kept nor that it is not.
        if not measured.unknown_because and (Outcome.FAIL in outcomes or unexplained):
            pytest.fail("\n".join(measured.reasons), pytrace=False)
        if measured.unknown_because or Outcome.UNKNOWN in outcomes:
            unknown("\n".join(measured.reasons))
        return measured

    @overload
    def take(self, flows: PathProbes, *faults: FaultScope, drops: Sequence[Drop] = ()) -> ProbesMeasured: ...
    @overload
    def take(self, flows: MrcTransfers, *faults: FaultScope, drops: Sequence[Drop] = ()) -> TransfersMeasured: ...
    @overload
    def take(self, flows: VoiceCalls, *faults: FaultScope, drops: Sequence[Drop] = ()) -> VoiceMeasured: ...
    def take(
        self, flows: PathProbes | MrcTransfers | VoiceCalls, *faults: FaultScope, drops: Sequence[Drop] = ()
    ) -> Measured:
        """The same figures, kept as well, and no verdict: for a test that decides by some of them only."""
        return self._taken(flows, faults, drops)

    def _taken(
        self, flows: PathProbes | MrcTransfers | VoiceCalls, faults: Sequence[FaultScope], drops: Sequence[Drop]
    ) -> Measured:
        measured = self._measured(flows, faults, drops)
        self.taken.append(measured)
        exporting.failovers(self._item.config, measured.figures)
        self._keep(measured)
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
        """Write result, samples and page below ``--results``, where that is given; tell JUnit files the figures."""
        config = self._item.config
        self._item.user_properties += [
            (f"testbed.{figure.name}", "unknown" if figure.value is None else f"{figure.value:.9g} {figure.unit}")
            for figure in measured.figures
            if figure.scope == "all"
        ]
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
            facts=recording.facts_of(config),
        )
        self._item.user_properties.append((recording.RESULT, f"{folder.path.name}/{folder.result_file.name}"))

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
