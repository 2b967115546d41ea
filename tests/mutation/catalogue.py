"""Every planted defect, by name."""

from __future__ import annotations

from tests.mutation.endpoint import ENDPOINT
from tests.mutation.measuring import MEASURING
from tests.mutation.planting import Defect

DEFECTS: dict[str, Defect] = {defect.name: defect for defect in (*ENDPOINT, *MEASURING)}
