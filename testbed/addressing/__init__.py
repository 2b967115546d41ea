"""Static SRv6 addressing: EV ↔ path ↔ destination address. Pure, and by arithmetic on the lab's counts.

The outer IPv6 destination is a 32-bit locator block and up to six 16-bit uSIDs (F3216, RFC 9800). Every switch on the
path is named (uN), then the host's port: T0, T1, T0, port across T1s, or T0, port below one T0. A switch that finds its
own uSID first shifts the list left by 16 bits and looks the result up again.
"""

from testbed.addressing.ev import pack_ev, unpack_ev
from testbed.addressing.paths import Path
from testbed.addressing.plan import AddressPlan
from testbed.lab.usids import ORDINARY

__all__ = ["ORDINARY", "AddressPlan", "Path", "pack_ev", "unpack_ev"]
