"""What an EV set is made from must make sense, or the caller is told what does not."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError
from testbed.mrc.settings import EvSettings


def check_evs(evs: npt.NDArray[np.uint32], planes: npt.NDArray[np.uint8]) -> None:
    """Refuse an empty list of EVs, one whose planes are not one for each EV, and one that names an EV twice."""
    if evs.ndim != 1 or evs.shape != planes.shape or not evs.size:
        raise UsageError(
            "an EV set needs EVs, and the plane of each",
            where="mrc.evs",
            found=f"EVs of shape {evs.shape}, planes of shape {planes.shape}",
            expected="two columns of the same length, at least 1",
            remedy="give every EV its plane",
        )
    values, counts = np.unique(evs, return_counts=True)
    if values.size != evs.size:
        raise UsageError(
            "an EV is in the set more than once",
            where="mrc.evs",
            found=f"EV {values[counts.argmax()]:#x}, {counts.max()} times",
            expected="each EV once: it is how an acknowledgement names its path",
            remedy="give distinct EVs",
        )


def check_settings(settings: EvSettings) -> None:
    """Refuse settings that are not above 0."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value < 1:
            raise UsageError(
                "a setting of the EV set is too small",
                where=f"settings.evs.{field.name}",
                found=str(value),
                expected="1 or more",
                remedy="leave it out for the default, " + str(field.default),
            )
