"""A client's offer, read and found good, and the answer to it (SDP; RFC 8829, 8839, 8842, 8841).

Taken is what a voice call needs: one audio section with Opus, one data channel section, or both, on one transport
(BUNDLE). Other sections are refused in the answer, as SDP has it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiortc import sdp
from aiortc.rtcdtlstransport import X509_DIGEST_ALGORITHMS, RTCDtlsFingerprint, RTCDtlsParameters

from testbed.voice.addresses import Address
from testbed.voice.transceiver.ice import Credentials

MOST_BYTES: Final = 1 << 16
_MOST_SECTIONS: Final = 16
_MOST_LINES: Final = 2000
#: What SCTP of aiortc reassembles, bounded here.
MOST_MESSAGE: Final = 1 << 16
_HOST_PRIORITY: Final = 126 << 24 | 65535 << 8 | 255
_ICE_CHARS: Final = re.compile(r"[A-Za-z0-9+/]+")
_MID: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,32}")
_DIRECTIONS: Final = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


class OfferError(ValueError):
    """The offer cannot be taken; the text says why, for its sender."""


@dataclass(frozen=True)
class Section:
    """A media section of the offer, as the answer needs it.

    Attributes:
        kind, profile, formats: of its ``m=`` line.
        mid: its name.
        taken: whether it becomes part of the call.
    """

    kind: str
    profile: str
    formats: tuple[str, ...]
    mid: str
    taken: bool = False


@dataclass(frozen=True)
class Offer:
    """What a call is made of.

    Attributes:
        sections: all, in order.
        peer: the client's ufrag and password.
        dtls: its fingerprints.
        opus: the payload type of Opus; None without audio.
        direction: of the audio, as the answer says it.
        sctp_port: the client's; None without data channels.
        most_message: bytes of a message that the client takes; 0: any.
    """

    sections: tuple[Section, ...]
    peer: Credentials
    dtls: RTCDtlsParameters
    opus: int | None = None
    direction: str = "inactive"
    sctp_port: int | None = None
    most_message: int = 65536


def read(text: str) -> Offer:
    """Read an offer. Raises OfferError."""
    if not text.startswith("v=0") or len(text) > MOST_BYTES or text.count("\n") > _MOST_LINES:
        raise OfferError(f"this is no session description, or more than {MOST_BYTES:,} characters of it")
    try:
        whole = sdp.SessionDescription.parse(text)
    except Exception:  # of a parser that is not ours, over what the client made up
        raise OfferError("the session description cannot be read") from None
    if not 1 <= len(whole.media) <= _MOST_SECTIONS:
        raise OfferError(f"{len(whole.media)} media sections, not 1 to {_MOST_SECTIONS}")
    bundled = {str(mid) for group in whole.group if group.semantic == "BUNDLE" for mid in group.items}
    audio = next((each for each in whole.media if each.kind == "audio" and _opus(each) is not None and each.port), None)
    data = next((each for each in whole.media if each.kind == "application" and each.sctp_port and each.port), None)
    if audio is None and data is None:
        raise OfferError("no audio section with opus/48000/2, and no data channel with a=sctp-port")
    for section in (audio, data):
        if section is not None and audio is not None and data is not None and section.rtp.muxId not in bundled:
            raise OfferError("the sections are not on one transport: a=group:BUNDLE does not name them all")
    mids = [_mid(each) for each in whole.media]
    if len(set(mids)) != len(mids):
        raise OfferError("two media sections have the same a=mid")
    first = audio or data
    assert first is not None
    return Offer(
        sections=tuple(
            Section(each.kind, each.profile, tuple(map(str, each.fmt)), mid, each is audio or each is data)
            for each, mid in zip(whole.media, mids, strict=True)
        ),
        peer=_ice(first),
        dtls=_dtls(first),
        opus=_opus(audio) if audio else None,
        direction=_DIRECTIONS[audio.direction or "sendrecv"] if audio else "inactive",
        sctp_port=_port(data.sctp_port or 0) if data else None,
        most_message=data.sctpCapabilities.maxMessageSize if data and data.sctpCapabilities else 65536,
    )


def _opus(section: sdp.MediaDescription) -> int | None:
    for codec in section.rtp.codecs:
        number = codec.payloadType
        if codec.mimeType.lower() == "audio/opus" and codec.clockRate == 48000 and number is not None and number < 128:
            return number
    return None


def _mid(section: sdp.MediaDescription) -> str:
    mid = section.rtp.muxId
    if mid is None or not _MID.fullmatch(mid):
        raise OfferError("a media section without an a=mid of at most 32 characters")
    return str(mid)


def _ice(section: sdp.MediaDescription) -> Credentials:
    ice = section.ice
    if ice is None:
        raise OfferError("a=ice-ufrag and a=ice-pwd are needed")
    if ice.iceLite:
        raise OfferError("a=ice-lite: both ends would wait for the other's connectivity checks")
    ufrag, password = ice.usernameFragment or "", ice.password or ""
    if not 4 <= len(ufrag) <= 256 or not 22 <= len(password) <= 256:
        raise OfferError("a=ice-ufrag of 4 to 256 characters and a=ice-pwd of 22 to 256 are needed")
    if not _ICE_CHARS.fullmatch(ufrag) or not _ICE_CHARS.fullmatch(password):
        raise OfferError("a=ice-ufrag and a=ice-pwd are letters, digits, + and /")
    return Credentials(ufrag, password)


def _dtls(section: sdp.MediaDescription) -> RTCDtlsParameters:
    dtls = section.dtls
    known = [
        RTCDtlsFingerprint(each.algorithm.lower(), each.value)
        for each in (dtls.fingerprints if dtls else [])[:8]
        if each.algorithm.lower() in X509_DIGEST_ALGORITHMS
    ]
    if dtls is None or not known:
        names = ", ".join(X509_DIGEST_ALGORITHMS)
        raise OfferError(f"a=setup and an a=fingerprint are needed, of one of: {names}")
    if dtls.role == "server":
        raise OfferError("a=setup:passive: the client has to open DTLS; offer actpass")
    return RTCDtlsParameters(known, dtls.role)


def _port(port: int) -> int:
    if not 0 < port < 1 << 16:
        raise OfferError("a=sctp-port is no port")
    return port


def answer(
    offer: Offer,
    mine: Credentials,
    fingerprints: Sequence[RTCDtlsFingerprint],
    relays: Sequence[Address],
    ssrc: int,
    cname: str,
) -> str:
    """The answer's text.

    Args:
        offer: to what.
        mine: the session's.
        fingerprints: of the certificate.
        relays: what clients send to; the first is the one of ``c=``.
        ssrc: of the audio that is sent.
        cname: names the sender in RTCP.
    """
    lines = ["v=0", f"o=- {time.time_ns()} 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=ice-lite"]
    lines.append("a=group:BUNDLE " + " ".join(each.mid for each in offer.sections if each.taken))
    lines.append("a=msid-semantic: WMS *")
    for section in offer.sections:
        formats = " ".join(section.formats)
        if not section.taken:
            lines += [f"m={section.kind} 0 {section.profile} {formats}", "c=IN IP4 0.0.0.0", "a=inactive"]
            lines.append(f"a=mid:{section.mid}")
            continue
        audio = section.kind == "audio"
        lines.append(f"m={section.kind} {relays[0].port} {section.profile} {offer.opus if audio else formats}")
        lines += [f"c={_connection(relays[0])}", f"a=mid:{section.mid}"]
        lines += _audio(offer, ssrc, cname) if audio else [f"a=sctp-port:{5000}", f"a=max-message-size:{MOST_MESSAGE}"]
        lines += [
            f"a=candidate:{number} 1 udp {_HOST_PRIORITY - number} {_host(relay)} {relay.port} typ host"
            for number, relay in enumerate(relays)
        ]
        lines += ["a=end-of-candidates", f"a=ice-ufrag:{mine.ufrag}", f"a=ice-pwd:{mine.password}"]
        lines += [f"a=fingerprint:{each.algorithm} {each.value}" for each in fingerprints]
        lines.append("a=setup:passive")
    return "\r\n".join(lines) + "\r\n"


def _audio(offer: Offer, ssrc: int, cname: str) -> list[str]:
    lines = [
        f"a={offer.direction}",
        "a=rtcp-mux",
        f"a=rtpmap:{offer.opus} opus/48000/2",
        f"a=fmtp:{offer.opus} minptime=10;useinbandfec=1",
    ]
    if offer.direction.startswith("send"):
        lines += [f"a=msid:{cname} audio", f"a=ssrc:{ssrc} cname:{cname}"]
    return lines


def _host(address: Address) -> str:
    return str(address).rpartition(":")[0].strip("[]")


def _connection(address: Address) -> str:
    host = _host(address)
    return f"IN IP{6 if ':' in host else 4} {host}"
