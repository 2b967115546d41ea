"""Offers: what is taken of them, what is refused, and the answer."""

from __future__ import annotations

import string

import pytest
from aiortc import sdp
from aiortc.rtcdtlstransport import RTCDtlsFingerprint
from hypothesis import given
from hypothesis import strategies as st

from testbed.voice.addresses import Address
from testbed.voice.transceiver import offers
from testbed.voice.transceiver.ice import Credentials
from testbed.voice.transceiver.offers import OfferError

PRINT = ":".join(["AB"] * 32)
HEAD = f"""v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=ice-ufrag:abcd
a=ice-pwd:{"p" * 24}
a=fingerprint:sha-256 {PRINT}
a=setup:actpass
"""
AUDIO = """m=audio 9 UDP/TLS/RTP/SAVPF 111 63 0
c=IN IP4 0.0.0.0
a=mid:0
a=sendrecv
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=rtpmap:63 red/48000/2
a=rtpmap:0 PCMU/8000
"""
DATA = """m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:1
a=sctp-port:5000
a=max-message-size:262144
"""
VIDEO = """m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:2
a=sendrecv
a=rtpmap:96 VP8/90000
"""
OFFER = HEAD + AUDIO + DATA
MINE = Credentials("u" * 32, "w" * 32)
RELAYS = (Address.of("192.0.2.1", 3478), Address.of("2001:db8::1", 3478))


def answered(text: str) -> sdp.SessionDescription:
    answer = offers.answer(offers.read(text), MINE, [RTCDtlsFingerprint("sha-256", PRINT)], RELAYS, 77, "name")
    assert answer.endswith("\r\n")
    return sdp.SessionDescription.parse(answer)


def test_a_call_with_audio_and_data() -> None:
    offer = offers.read(OFFER)
    assert (offer.opus, offer.sctp_port, offer.most_message) == (111, 5000, 262144)
    assert offer.peer == Credentials("abcd", "p" * 24)
    answer = answered(OFFER)
    audio, data = answer.media
    for section in (audio, data):
        assert section.ice is not None
        assert (section.ice.usernameFragment, section.ice.password) == (MINE.ufrag, MINE.password)
        assert section.ice.iceLite
        assert [(each.ip, each.port, each.type) for each in section.ice_candidates] == [
            ("192.0.2.1", 3478, "host"),
            ("2001:db8::1", 3478, "host"),
        ]
        assert section.dtls is not None
        assert section.dtls.role == "server"
    assert [codec.mimeType for codec in audio.rtp.codecs] == ["audio/opus"]
    assert (audio.direction, audio.rtcp_mux, audio.port) == ("sendrecv", True, 3478)
    assert audio.ssrc[0].ssrc == 77
    assert data.sctp_port == 5000
    assert answer.group[0].items == ["0", "1"]


def test_what_is_not_wanted_is_refused_in_its_place() -> None:
    answer = answered(HEAD + VIDEO + AUDIO + DATA)
    assert [(each.kind, each.port != 0) for each in answer.media] == [
        ("video", False),
        ("audio", True),
        ("application", True),
    ]
    assert [each.rtp.muxId for each in answer.media] == ["2", "0", "1"]
    assert answer.group[0].items == ["0", "1"]


@pytest.mark.parametrize(
    ("theirs", "ours"), [("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive", "inactive")]
)
def test_directions_are_turned(theirs: str, ours: str) -> None:
    assert answered(OFFER.replace("a=sendrecv", f"a={theirs}")).media[0].direction == ours


def test_data_alone_and_audio_alone() -> None:
    assert offers.read(HEAD + DATA).opus is None
    assert offers.read(HEAD + AUDIO).sctp_port is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no session description"),
        ("nonsense", "no session description"),
        (OFFER + "a=x:" + "y" * 70_000, "no session description"),
        (OFFER + "a=x\n" * 3000, "no session description"),
        (HEAD, "0 media sections"),
        (HEAD + VIDEO, "opus/48000/2"),
        (HEAD + AUDIO.replace("opus", "speex"), "opus/48000/2"),
        (OFFER.replace("BUNDLE 0 1", "BUNDLE 0"), "BUNDLE"),
        (OFFER.replace("a=mid:1", "a=mid:0"), "same a=mid"),
        (HEAD + AUDIO.replace("a=mid:0\n", ""), "a=mid"),
        (OFFER.replace("a=ice-pwd:" + "p" * 24, "a=ice-pwd:short"), "a=ice-pwd"),
        (OFFER.replace("a=ice-ufrag:abcd", "a=ice-ufrag:ab d"), "letters, digits"),
        (OFFER.replace("a=ice-ufrag:abcd\n", ""), "a=ice-ufrag"),
        (OFFER.replace("t=0 0", "t=0 0\na=ice-lite"), "ice-lite"),
        (OFFER.replace("sha-256", "md5"), "fingerprint"),
        (OFFER.replace("a=setup:actpass", "a=setup:passive"), "setup:passive"),
        (OFFER.replace("a=setup:actpass\n", ""), "a=setup"),
        (OFFER.replace("a=sctp-port:5000", "a=sctp-port:70000"), "sctp-port"),
        (OFFER.replace("a=rtpmap:111", "a=rtpmap:x"), "cannot be read"),
        (HEAD + AUDIO * 17, "media sections"),
    ],
)
def test_an_offer_that_cannot_be_taken_is_told_why(text: str, says: str) -> None:
    with pytest.raises(OfferError, match=says):
        offers.read(text)


@given(st.data())
def test_a_changed_offer_is_taken_or_refused(data: st.DataObject) -> None:
    lines = OFFER.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["drop", "double", "text", "cut", "swap"]))
        if change == "drop" and len(lines) > 1:
            del lines[at]
        elif change == "double":
            lines.insert(at, lines[at])
        elif change == "text":
            lines[at] = lines[at][:2] + data.draw(st.text(string.printable + "é\x00\u2028", max_size=40))
        elif change == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, 20))]
        elif change == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
    text = "\n".join(lines)
    try:
        offer = offers.read(text)
    except OfferError:
        return
    answer = offers.answer(offer, MINE, [RTCDtlsFingerprint("sha-256", PRINT)], RELAYS, 1, "name")
    assert len(sdp.SessionDescription.parse(answer).media) == len(offer.sections)
