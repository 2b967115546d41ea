"""How a quantity is spread: counts between logarithmic edges, for drawing. Percentiles are figures of their own."""

from __future__ import annotations

from typing import Annotated, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from testbed.measure.match import Matched
from testbed.measure.reorder import reordering
from testbed.measure.result_parts import Count, Name, Part
from testbed.measure.streams import Level, streams

#: Bins of one distribution at most.
MOST_BINS: Final = 96


class DistributionRecord(Part):
    """Samples per bin: bin ``i`` holds those from ``edges[i]`` to below ``edges[i + 1]``."""

    name: Name
    unit: Name
    scope: Name = "all"
    samples: Count
    edges: Annotated[tuple[float, ...], Field(min_length=2, max_length=MOST_BINS + 1)]
    counts: Annotated[tuple[Count, ...], Field(min_length=1, max_length=MOST_BINS)]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.counts)} bins between {len(self.edges)} edges")
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges that do not ascend")
        if sum(self.counts) != self.samples:
            raise ValueError(f"{sum(self.counts)} in bins, of {self.samples} samples")
        return self


def distributions(matched: Matched, planes: tuple[int, ...]) -> tuple[DistributionRecord, ...]:
    """One-way delay over all and per plane, and reordering extent; nothing of what has no samples.

    No delays where clocks that disagree made some of them negative.
    """
    delays_ns = matched.delays()
    # An arrival may be stamped before its sending was, by as much as that stamp may be wrong: its delay is then 0.
    late = delays_ns.size and int(delays_ns.min()) < -matched.samples.send_error_ns
    delays = np.zeros(0) if late else np.maximum(delays_ns, 0).astype(np.float64) * 1e-9
    plane_of = matched.plane[matched.received]
    found = [distribution_of("delay", "s", "all", delays)]
    found += [distribution_of("delay", "s", f"plane {plane}", delays[plane_of == plane]) for plane in planes]
    extents = reordering(streams(matched, Level.FLOW)).extents.values.astype(np.float64)
    found.append(distribution_of("reordering_extent", "packets", "all", extents, whole=True))
    return tuple(one for one in found if one is not None)


def distribution_of(
    name: str, unit: str, scope: str, values: npt.NDArray[np.float64], *, whole: bool = False
) -> DistributionRecord | None:
    """How values are spread; None without any. ``whole``: they are whole numbers, none of them below 0."""
    if not values.size:
        return None
    # What is zero has no logarithm: it belongs to the first bin, as does what is far below everything else.
    high = max(float(values.max()), 2e-9)
    low = max(float(values.min()), high * 1e-5)
    if whole:
        # Packets are whole: one bin for each of the small numbers.
        edges = np.unique(np.floor(np.geomspace(low, high + 1, MOST_BINS))).astype(np.float64)
        edges = np.append(edges[edges <= high], high + 1)
    else:
        edges = np.geomspace(low, max(high, low * 1.01), MOST_BINS // 2 + 1)
    edges[0] = min(edges[0], float(values.min()))
    # Rounding must not push the largest out of the last bin.
    edges[-1] = max(edges[-1], np.nextafter(high, np.inf))
    counts = np.histogram(values, bins=edges)[0]
    return DistributionRecord(
        name=name,
        unit=unit,
        scope=scope,
        samples=int(values.size),
        edges=tuple(edges.tolist()),
        counts=tuple(int(count) for count in counts),
    )
