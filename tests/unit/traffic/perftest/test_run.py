"""Which program a lab's role means."""

from __future__ import annotations

import sys

import pytest

from testbed.errors import UsageError
from testbed.lab import Lab, Role
from testbed.traffic.perftest.options import Tool
from testbed.traffic.perftest.run import command_of


def role(argv: str) -> Role | None:
    shape = "name: x\nplanes: 1\nt0_per_plane: 1\nt1_per_plane: 0\nhosts_per_t0: 2\n"
    roles = f"roles:\n  mrc_endpoint: {{argv: {argv}, host: each, ready: {{port: 18515}}}}\n"
    return Lab.parse(shape + roles).roles.mrc_endpoint


def test_without_a_role_it_is_our_own() -> None:
    assert command_of(None, Tool.WRITE_LAT) == (sys.executable, "-m", "testbed.traffic.perftest", "write_lat")


def test_a_role_says_where_the_tools_name_belongs() -> None:
    given = role('["ib_{tool}", -d, mlx5_0]')
    assert command_of(given, Tool.WRITE_BW) == ("ib_write_bw", "-d", "mlx5_0")
    assert command_of(given, Tool.WRITE_LAT) == ("ib_write_lat", "-d", "mlx5_0")


def test_a_role_that_does_not_say_is_no_perftest() -> None:
    with pytest.raises(UsageError, match="is no mrc_write_lat"):
        command_of(role("[ib_write_bw]"), Tool.WRITE_LAT)
