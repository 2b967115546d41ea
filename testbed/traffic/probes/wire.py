"""The probe packet: a STAMP test packet inside IPv6-in-IPv6, built and read as numpy columns.

    outer IPv6 40 | inner IPv6 40 | UDP 8 | STAMP Session-Sender test packet 44 | probe TLV 24 | Extra Padding TLV

The outer destination is the uSID list; a switch shifts it, so no checksum may cover it: the UDP checksum
covers the inner header, whose addresses never change. It is always set, because a reflector may drop UDP
over IPv6 without one (RFC 8200 section 8.1). The STAMP part is unauthenticated mode (RFC 8762 section 4.2.1) with
an SSID (RFC 8972 section 3); its TLVs (RFC 8972 section 4) are one of private-use type 252 and Extra Padding, so
that any STAMP reflector can answer.

The 32-bit EV is in the probe TLV; its low 14 bits choose the UDP source port (an ephemeral one: a reflector may not
answer to port 0), its low 20 bits are the flow label of both IPv6 headers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.traffic.probes.plan import SIZE_MIN, SIZE_PADDED_MIN

Bytes = npt.NDArray[np.uint8]
Column = npt.NDArray[np.uint64]

STAMP_PORT = 862
NEXT_HEADER_IPV6 = 41
NEXT_HEADER_UDP = 17
HOP_LIMIT = 64
TLV_PADDING = 1
#: Private use is 252 to 254 (IANA, STAMP TLV Types).
TLV_PROBE = 252
#: U flag: a Session-Sender sends it as 1, a reflector that knows the TLV clears it (RFC 8972 section 4).
TLV_FLAGS = 0x80
TLV_PROBE_BYTES = 20
#: S = 0 (not synchronised), Z = 0 (NTP format), 64 * 2**-32 * 2**16 s = 0.98 ms: the stamp is taken before
#: the batch of up to 64 packets goes out (RFC 4656 section 4.1.2).
ERROR_ESTIMATE = 0x1040
#: Seconds from the NTP epoch (1900) to the Unix epoch.
NTP_OFFSET = 2_208_988_800
_ONES = np.uint64(0xFFFF)
_EPHEMERAL = 0xC000

_IPV6 = [("word", ">u4"), ("payload", ">u2"), ("next", "u1"), ("hops", "u1"), ("source", "V16"), ("destination", "V16")]
_TLV = [("flags", "u1"), ("type", "u1"), ("length", ">u2")]

#: The first 160 bytes of a probe: everything but the zeroes of the padding.
HEADER = np.dtype(
    [
        ("outer", _IPV6),
        ("inner", _IPV6),
        ("udp_source", ">u2"),
        ("udp_destination", ">u2"),
        ("udp_length", ">u2"),
        ("udp_checksum", ">u2"),
        ("seq32", ">u4"),
        ("seconds", ">u4"),
        ("fraction", ">u4"),
        ("error_estimate", ">u2"),
        ("ssid", ">u2"),
        ("zero", "V28"),
        ("tlv", _TLV),
        ("run_id", ">u4"),
        ("flow", ">u4"),
        ("ev", ">u4"),
        ("seq", ">u8"),
        ("padding", _TLV),
    ]
)
HEADER_BYTES = HEADER.itemsize
_OUTER_BYTES = 40
_UDP_AT = 80


def ntp_stamp(t_ns: int) -> tuple[int, int]:
    """Seconds and fraction of the NTP 64-bit format for a CLOCK_REALTIME of ``t_ns`` nanoseconds."""
    seconds, nanoseconds = divmod(t_ns, 1_000_000_000)
    return (seconds + NTP_OFFSET) & 0xFFFFFFFF, (nanoseconds << 32) // 1_000_000_000


def templates(
    *,
    run_id: int,
    flow: int,
    source: bytes,
    destination: bytes,
    usids: Bytes,
    evs: npt.NDArray[np.uint32],
    size: int,
    port: int = STAMP_PORT,
) -> npt.NDArray[np.void]:
    """Headers of one flow, one per EV, with sequence number, time stamp and checksum still zero.

    Args:
        run_id: 32-bit number of the run.
        flow: flow number.
        source: 16 bytes, the sending NIC's address, in both headers.
        destination: 16 bytes, inner destination.
        usids: ``(n, 16)`` bytes, outer destinations.
        evs: ``(n,)`` entropy values.
        size: bytes of the whole packet.
        port: UDP destination port.

    Returns:
        ``(n,)`` of :data:`HEADER`.
    """
    rows = np.zeros(len(evs), HEADER)
    for name, payload, next_header in (
        ("outer", size - _OUTER_BYTES, NEXT_HEADER_IPV6),
        ("inner", size - _UDP_AT, NEXT_HEADER_UDP),
    ):
        header = rows[name]
        header["word"] = 0x60000000 | (evs & 0xFFFFF)
        header["payload"] = payload
        header["next"] = next_header
        header["hops"] = HOP_LIMIT
        header["source"] = np.void(source)
    rows["outer"]["destination"] = np.ascontiguousarray(usids).view("V16").reshape(-1)
    rows["inner"]["destination"] = np.void(destination)
    rows["udp_source"] = _EPHEMERAL | (evs & 0x3FFF)
    rows["udp_destination"] = port
    rows["udp_length"] = size - _UDP_AT
    rows["error_estimate"] = ERROR_ESTIMATE
    # An SSID of 0 means "none" (RFC 8972 section 3).
    rows["ssid"] = flow % 0xFFFF + 1
    rows["tlv"]["flags"] = TLV_FLAGS
    rows["tlv"]["type"] = TLV_PROBE
    rows["tlv"]["length"] = TLV_PROBE_BYTES
    rows["run_id"] = run_id
    rows["flow"] = flow
    rows["ev"] = evs
    if size >= SIZE_PADDED_MIN:
        rows["padding"]["flags"] = TLV_FLAGS
        rows["padding"]["type"] = TLV_PADDING
        rows["padding"]["length"] = size - SIZE_PADDED_MIN
    return rows


def static_sums(rows: npt.NDArray[np.void]) -> Column:
    """Per header the unfolded one's complement sum of pseudo-header, UDP and payload, as the header stands.

    The pseudo-header (RFC 8200 section 8.1) holds the inner addresses, the UDP length and the next header.
    """
    octets = rows.view(np.uint8).reshape(len(rows), HEADER_BYTES)
    addresses_and_payload = octets[:, _OUTER_BYTES + 8 :].view(">u2")
    length = rows["udp_length"].astype(np.uint64)
    sums: Column = addresses_and_payload.sum(axis=1, dtype=np.uint64) + length + np.uint64(NEXT_HEADER_UDP)
    return sums


def sequence_sums(seq: Column) -> Column:
    """What the two sequence number fields add to the checksum's sum (the 32-bit one is the low half)."""
    low = (seq & 0xFFFF) + (seq >> np.uint64(16) & 0xFFFF)
    sums: Column = low * np.uint64(2) + (seq >> np.uint64(32) & 0xFFFF) + (seq >> np.uint64(48))
    return sums


def stamp_sum(seconds: int, fraction: int) -> np.uint64:
    """What the time stamp adds to the checksum's sum."""
    return np.uint64((seconds >> 16) + (seconds & 0xFFFF) + (fraction >> 16) + (fraction & 0xFFFF))


def fold(sums: Column) -> Column:
    """The UDP checksum for each (non-zero) sum; one that would be 0 is sent as 0xFFFF (RFC 8200 section 8.1).

    Folding carries back in is the remainder by 0xFFFF (RFC 1071), with 0xFFFF in place of 0; the complement of
    that, with 0xFFFF in place of 0 once more, is the difference below.
    """
    checksums: Column = _ONES - sums % _ONES
    return checksums


@dataclass(frozen=True)
class Decoded:
    """Columns of ``n`` captured packets; where ``valid`` is False the others mean nothing.

    ``destination``: V16, the inner one.
    """

    valid: npt.NDArray[np.bool_]
    run_id: npt.NDArray[np.uint32]
    flow: npt.NDArray[np.uint32]
    ev: npt.NDArray[np.uint32]
    seq: npt.NDArray[np.uint64]
    destination: npt.NDArray[np.void]


def decode(
    packets: Bytes, captured: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer], port: int = STAMP_PORT
) -> Decoded:
    """Read probes from captured bytes; any bytes are allowed.

    Args:
        packets: ``(n, w)`` with ``w`` of at least 156: packets from the outer IPv6 header on; the bytes past what was
            captured may hold anything.
        captured: ``(n,)`` bytes captured of each.
        lengths: ``(n,)`` bytes each had on the wire.
        port: their UDP destination port.
    """
    octets = np.ascontiguousarray(packets[:, :SIZE_MIN])
    rows = octets.view(_CAPTURED).reshape(len(octets))
    outer, inner, tlv = rows["outer"], rows["inner"], rows["tlv"]
    valid = (captured >= SIZE_MIN) & (lengths >= SIZE_MIN)
    valid &= (outer["word"] >> 28 == 6) & (outer["next"] == NEXT_HEADER_IPV6)
    valid &= (inner["word"] >> 28 == 6) & (inner["next"] == NEXT_HEADER_UDP)
    # Ethernet may pad a frame, so a packet may be longer than it says, but never shorter.
    valid &= outer["payload"].astype(np.int64) + _OUTER_BYTES <= lengths
    valid &= outer["payload"] == inner["payload"].astype(np.int64) + _OUTER_BYTES
    valid &= inner["payload"] == rows["udp_length"]
    valid &= rows["udp_destination"] == port
    valid &= (tlv["type"] == TLV_PROBE) & (tlv["length"] == TLV_PROBE_BYTES)
    valid &= rows["seq32"] == rows["seq"] & 0xFFFFFFFF
    return Decoded(
        valid,
        rows["run_id"].astype(np.uint32),
        rows["flow"].astype(np.uint32),
        rows["ev"].astype(np.uint32),
        rows["seq"].astype(np.uint64),
        inner["destination"],
    )


_CAPTURED = np.dtype([(name, HEADER[name]) for name in (HEADER.names or ()) if name != "padding"])
