"""How fast scapy sends what the software NIC sends: each packet built of its layers, then sent, one at a time.

Run in a host's network namespace; prints packets and seconds as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time

from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw
from scapy.supersocket import L3RawSocket6

from testbed.mrc.datapath.plan import NicPlan
from testbed.mrc.wire import layers
from testbed.mrc.wire.layers import ICRC, LAYERS

_PAYLOAD = os.urandom(4096)


def _packet(plan: NicPlan, number: int) -> Packet:
    """A full WRITE; paths take turns."""
    peer = plan.peers[0]
    path = number % len(peer.evs)
    outer, inner, udp = layers.carrying(peer.evs[path])
    source = next(port.address for port in plan.ports if port.plane == peer.planes[path])
    digits = peer.destinations[32 * path : 32 * path + 32]
    destination = ":".join(digits[at : at + 4] for at in range(0, 32, 4))
    made: Packet = IPv6(src=source, dst=destination, tc=layers.traffic_class("TRIMMABLE", 2), **outer)
    made /= IPv6(src=plan.address, dst=peer.address, **inner) / UDP(**udp)
    made /= LAYERS["BTH"](opcode="WRITE_MIDDLE", dqp=17, psn=number & 0xFFFFFF) / LAYERS["METH"](msn=number >> 8)
    made /= LAYERS["TSETH"]() / LAYERS["RETH"](va=0x7000_0000_0000 + 4096 * number, rkey=1, dma_length=1 << 20)
    return made / Raw(_PAYLOAD) / ICRC()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", help="file of the sending NIC's plan")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    with open(options.plan) as text:
        plan = NicPlan.from_json(text.read())
    raw = L3RawSocket6()
    raw.ins.close()  # It would get a copy of every packet sent.
    number, began = 0, time.monotonic()
    while (elapsed := time.monotonic() - began) < options.seconds:
        packet = _packet(plan, number)
        raw.send(packet)
        number += 1
    print(json.dumps({"packets": number, "seconds": elapsed}))


if __name__ == "__main__":
    main()
