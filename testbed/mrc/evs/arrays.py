"""Types of the columns that the parts of an EV set share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]
NOTHING: Indices = np.empty(0, np.int64)
NOTHING.flags.writeable = False


def pick(among: Indices, rng: np.random.Generator) -> int:
    """One of these at random; ``Generator.choice`` takes ten times as long."""
    return int(among[int(rng.random() * among.size)])
