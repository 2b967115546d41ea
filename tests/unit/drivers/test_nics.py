"""NIC counters: the families' own names as their kernel drivers have them, and common ones."""

from __future__ import annotations

import pytest
from testbed_drivers import rdma
from testbed_drivers.bnxt import BnxtHost
from testbed_drivers.ionic import IonicHost
from testbed_drivers.mlx5 import Mlx5Host

from testbed.fabric.abilities import NIC_COUNTERS
from tests.unit.drivers.goldens import golden


@pytest.mark.parametrize(("family", "names"), [(Mlx5Host, "mlx5-counters.txt"), (BnxtHost, "bnxt-re-counters.txt")])
def test_every_name_is_one_of_the_kernel_drivers_and_means_something(family: type[rdma.RdmaHost], names: str) -> None:
    own = golden(names).split()
    assert set(family.common_names) <= set(NIC_COUNTERS)
    assert set(family.common_names.values()) <= set(own)
    assert set(family.narrow) <= set(own)
    assert family.distrusted <= set(own)


def test_a_ports_counters_are_read_and_named() -> None:
    found = rdma.statistics(golden("rdma-statistic.txt"))["mlx5_2/1"]
    assert (found["rx_write_requests"], found["np_cnp_sent"]) == (8, 0)
    counted = Mlx5Host.counted({**found, "out_of_sequence": 5, "np_cnp_sent": 7}, "mlx5_2/1")
    assert (counted.common["out_of_order"], counted.common["cnps_sent"]) == (5, 7)
    assert counted.wraps["out_of_order"] == 32
    assert "cnps_sent" not in counted.wraps
    assert "retries_exceeded" not in counted.common, "this version of the driver does not have it"
    assert counted.raw["rx_read_requests"] == 4


@pytest.mark.parametrize(
    "line",
    [
        "link mlx5_0/1 state ACTIVE physical_state LINK_UP netdev ens7f0np0",
        "8/1: mlx5_0/1: state ACTIVE physical_state LINK_UP netdev ens7f0np0",
        "link mlx5_0/1 subnet_prefix fe80:0000 lid 13399 state ACTIVE physical_state LINK_UP netdev ens7f0np0 ",
    ],
)
def test_a_port_is_found_by_its_network_interface(line: str) -> None:
    assert rdma.links(line) == {"ens7f0np0": "mlx5_0/1"}
    assert rdma.links("link mlx5_1/1 state DOWN physical_state DISABLED") == {}


def test_a_counter_that_is_not_what_its_name_says_is_left_out() -> None:
    counted = BnxtHost.counted({"recoverable_errors": 9, "to_retransmits": 2}, "bnxt_re0/1")
    assert (dict(counted.raw), dict(counted.common)) == ({"to_retransmits": 2}, {"timeout_retransmits": 2})


def test_names_that_only_the_firmware_knows_are_told_as_they_are_and_invalid_values_not_at_all() -> None:
    text = f"link ionic_0/1 rdma_tx_pkts 4 odd_name {2**64 - 1}"
    counted = IonicHost.counted(rdma.statistics(text)["ionic_0/1"], "ionic_0/1")
    assert (dict(counted.raw), dict(counted.common)) == ({"rdma_tx_pkts": 4}, {})
