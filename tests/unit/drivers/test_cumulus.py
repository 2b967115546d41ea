"""Ports of Cumulus Linux are set as the user guide sets them."""

from __future__ import annotations

from testbed_drivers.cumulus import APPLY, link_state

from tests.unit.drivers.goldens import golden


def test_a_port_is_set_down_and_up_in_the_published_form() -> None:
    published = [line.partition("$ ")[2] for line in golden("nvue-link-state.txt").splitlines()]
    own = [link_state("swp1", up=False), APPLY, link_state("swp1", up=True), APPLY]
    assert [" ".join(argv) for argv in own] == published
