"""Counts per plane and window, kept small enough to draw and honest about what was merged."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from testbed.measure.arrays import I64
from testbed.measure.result_parts import Count, Name, Part, RelativePath, StampNs
from testbed.measure.timeline import Timeline

#: Windows a result keeps: two per pixel of a wide drawing.
MOST_WINDOWS = 2000

Counts = tuple[Count, ...]


class PlaneSeries(Part):
    """One plane's packets, one number per drawn window."""

    plane: Annotated[int, Field(ge=0, le=255)]
    sent: Counts
    delivered: Counts
    delivered_min: Annotated[Counts, Field(description="Least delivered in one of the windows merged.")]
    delivered_max: Annotated[Counts, Field(description="Most delivered in one of the windows merged.")]
    lost: Annotated[Counts, Field(description="In the window they were offered in.")]
    reordered: Counts

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        columns = (self.sent, self.delivered, self.delivered_min, self.delivered_max, self.lost, self.reordered)
        if len({len(column) for column in columns}) > 1:
            raise ValueError(f"columns of different lengths: {[len(column) for column in columns]}")
        return self


class FlowSeries(Part):
    """One flow's packets, on the windows of its timeline."""

    flow: Name
    delivered: Counts
    delivered_min: Annotated[Counts, Field(description="Least delivered in one of the windows merged.")]
    delivered_max: Annotated[Counts, Field(description="Most delivered in one of the windows merged.")]
    lost: Annotated[Counts, Field(description="In the window they were offered in.")]


class TimelineRecord(Part):
    """Time series of a run, per plane.

    A drawn window is ``merged`` sampling windows: counts are their sums, so totals are exact, and the least and
    the most delivered in one of them are kept, so that a gap shorter than a drawn window still shows. Window
    ``i`` starts at ``origin_ns + i * merged * window_ns``. The last may hold fewer sampling windows
    (``last_merged``). Goodput is ``delivered * payload_bytes * 8 / (merged * window_ns)``.
    """

    origin_ns: StampNs
    window_ns: Annotated[int, Field(ge=1, description="Length of a sampling window.")]
    merged: Annotated[int, Field(ge=1)] = 1
    last_merged: Annotated[int, Field(ge=1)] = 1
    payload_bytes: Annotated[int, Field(ge=0, description="Payload of one packet; 0 where they differ.")]
    planes: tuple[PlaneSeries, ...]
    flows: Annotated[
        tuple[FlowSeries, ...], Field(max_length=4096, description="All flows, or those that lost the most.")
    ] = ()
    flows_left_out: Count = 0
    raw: Annotated[
        RelativePath | None, Field(description="File with every sampling window, unmerged; null: none was kept.")
    ] = None

    @classmethod
    def of(cls, timeline: Timeline, most: int = MOST_WINDOWS) -> Self:
        """A timeline with so many neighbouring windows merged that at most ``most`` are left."""
        rows = range(1, len(timeline.planes) + 1)
        delivered = np.asarray(timeline.delivered, dtype=np.int64)
        windows = int(delivered.shape[1])
        merged = max(-(-windows // most), 1)
        edges = np.arange(0, windows, merged)

        def column(values: I64, combine: np.ufunc = np.add) -> tuple[int, ...]:
            return tuple(combine.reduceat(values, edges).tolist()) if windows else ()

        return cls(
            origin_ns=int(timeline.origin_ns),
            window_ns=int(timeline.window_ns),
            merged=merged,
            last_merged=(windows - 1) % merged + 1 if windows else 1,
            payload_bytes=int(timeline.payload_bytes),
            planes=tuple(
                PlaneSeries(
                    plane=int(plane),
                    sent=column(timeline.sent[row]),
                    delivered=column(delivered[row]),
                    delivered_min=column(delivered[row], np.minimum),
                    delivered_max=column(delivered[row], np.maximum),
                    lost=column(timeline.lost[row]),
                    reordered=column(timeline.reordered[row]),
                )
                for plane, row in zip(timeline.planes, rows, strict=True)
            ),
        )

    @model_validator(mode="after")
    def _same_windows(self) -> Self:
        if len({len(series.sent) for series in self.planes}) > 1:
            raise ValueError("planes with different numbers of windows")
        for flow in self.flows:
            columns = (flow.delivered, flow.delivered_min, flow.delivered_max, flow.lost)
            if any(len(column) != self.windows for column in columns):
                raise ValueError(f"flow {flow.flow} has other numbers of windows than the planes, {self.windows}")
        if self.last_merged > self.merged:
            raise ValueError(f"last_merged is {self.last_merged}, above merged, {self.merged}")
        return self

    @property
    def windows(self) -> int:
        """How many drawn windows there are."""
        return len(self.planes[0].sent) if self.planes else 0

    @property
    def drawn_window_ns(self) -> int:
        """Length of a drawn window."""
        return self.merged * self.window_ns

    @property
    def end_ns(self) -> int:
        """End of the last sampling window."""
        if not self.windows:
            return self.origin_ns
        return self.origin_ns + ((self.windows - 1) * self.merged + self.last_merged) * self.window_ns

    def thinned(self, most: int) -> Self:
        """The same with at most ``most`` windows: sums of sums, least of leasts."""
        factor = -(-self.windows // most)
        if factor <= 1:
            return self
        edges = np.arange(0, self.windows, factor)

        def column(values: Counts, combine: np.ufunc = np.add) -> tuple[int, ...]:
            return tuple(combine.reduceat(np.asarray(values, dtype=np.int64), edges).tolist())

        # Made from what was validated: each page of thousands thins one.
        return type(self).model_construct(
            origin_ns=self.origin_ns,
            window_ns=self.window_ns,
            merged=self.merged * factor,
            last_merged=(self.windows - 1) % factor * self.merged + self.last_merged,
            payload_bytes=self.payload_bytes,
            planes=tuple(
                PlaneSeries.model_construct(
                    plane=series.plane,
                    sent=column(series.sent),
                    delivered=column(series.delivered),
                    delivered_min=column(series.delivered_min, np.minimum),
                    delivered_max=column(series.delivered_max, np.maximum),
                    lost=column(series.lost),
                    reordered=column(series.reordered),
                )
                for series in self.planes
            ),
            flows=tuple(
                FlowSeries.model_construct(
                    flow=series.flow,
                    delivered=column(series.delivered),
                    delivered_min=column(series.delivered_min, np.minimum),
                    delivered_max=column(series.delivered_max, np.maximum),
                    lost=column(series.lost),
                )
                for series in self.flows
            ),
            flows_left_out=self.flows_left_out,
            raw=self.raw,
        )
