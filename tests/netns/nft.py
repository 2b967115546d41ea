"""The program nft, for what no fault of the catalogue does."""

from __future__ import annotations

import os
import shutil

import pytest

from testbed.pytest_plugin.outcomes import NOT_RUN


def nft() -> str:
    """Its path; a machine without it makes the test *not run*."""
    path = shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{NOT_RUN}nft, which drops packets for this test, is not installed; remedy: apt install nftables")
    return path
