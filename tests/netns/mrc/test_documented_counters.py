"""Every counter that a running NIC shows is in docs/mrc.md, and every one there is shown."""

from __future__ import annotations

from testbed.traffic.workloads import Traffic
from tests.documented_counters import documented_counters, is_documented
from tests.netns.conftest import realise

LAB = "name: counted\nplanes: 2\nt0_per_plane: 2\nt1_per_plane: 1\nhosts_per_t0: 1\n"


def test_a_running_nic_shows_the_documented_counters() -> None:
    with realise(LAB) as fabric:
        flows = Traffic(fabric).mrc([("h0", "h1")], message=20_000, depth=1)
        with flows.running():
            flows.wait_messages(10)
            live = flows.live_counters()
    shown = set(flows.outcome.counters)
    assert set(live) == {"h0", "h1"}
    assert [name for name in sorted(shown) if not is_documented(name)] == []
    # Reasons, errors and stages that did not occur are not shown; neither is an ICRC that was never wrong.
    always = {name for name in documented_counters() if name.islower()} - {"rx_icrc_encapsulated"}
    assert sorted(always - shown) == []
