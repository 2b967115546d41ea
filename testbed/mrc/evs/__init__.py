"""Entropy values: the paths that packets take, and what becomes of a path that marks, trims or loses."""

from testbed.mrc.evs.evset import EvSet
from testbed.mrc.evs.reverse import ReverseEvs

__all__ = ["EvSet", "ReverseEvs"]
