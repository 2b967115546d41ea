"""The codec of the data path: rows into packets for ``sendmmsg``, received packets into rows."""

from testbed.mrc.wire.control import ControlEncoder
from testbed.mrc.wire.decoder import Decoder
from testbed.mrc.wire.outgoing import Encoded
from testbed.mrc.wire.paths import PathTable
from testbed.mrc.wire.payloads import Payloads
from testbed.mrc.wire.received import REASONS, Received
from testbed.mrc.wire.writes import WriteEncoder

__all__ = ["REASONS", "ControlEncoder", "Decoder", "Encoded", "PathTable", "Payloads", "Received", "WriteEncoder"]
