"""The folder a run leaves: result file, samples, page, logs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from testbed.errors import UsageError
from testbed.experiment.measurement import Measured
from testbed.faults.scope import FaultScope
from testbed.lab import Lab
from testbed.measure.limits import Outcome
from testbed.measure.provenance import machine_here, versions_here
from testbed.measure.result import Result, created_from_ns
from testbed.measure.result_parts import (
    ArtefactRecord,
    ClockRecord,
    FaultRecord,
    JudgementRecord,
    PressureRecord,
    Verdict,
    event_records,
    figure_records,
    lab_record,
)
from testbed.measure.resultfile import write_result
from testbed.measure.samplefile import write_samples
from testbed.measure.series import TimelineRecord

_TRIES = 100
