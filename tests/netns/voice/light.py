"""Clients that do what a call needs and nothing more: signalling, connectivity checks, a whole DTLS handshake.

A thousand of them fit into one process, where a thousand of a WebRTC library's would not.
"""

from __future__ import annotations

import http.client
import os
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pylibsrtp
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import SRTP_PROFILES
from OpenSSL import SSL

from testbed.kernel import many_descriptors
from testbed.voice import stun
from testbed.voice.addresses import Address
from testbed.voice.media.packets import Packet, is_rtcp

_AT_ONCE = 32
_AGAIN_S = 0.5
_CHECK_S = 5.0
_ANSWER = {name: re.compile(rf"^a={name}:(\S+)", re.MULTILINE) for name in ("ice-ufrag", "ice-pwd")}
_FINGERPRINT = re.compile(r"^a=fingerprint:sha-256 (\S+)", re.MULTILINE)
_CANDIDATE = re.compile(r"^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", re.MULTILINE)


class LightCall:
    """One call, from its answer on."""

    def __init__(self, bind: str, answer: str, context: SSL.Context) -> None:
        self._ufrag, self._password = (_ANSWER[name].search(answer)[1] for name in ("ice-ufrag", "ice-pwd"))  # type: ignore[index]
        self._fingerprint = _FINGERPRINT.search(answer)[1]  # type: ignore[index]
        host, port = _CANDIDATE.search(answer).groups()  # type: ignore[union-attr]
        self.relay = Address.of(host, int(port))
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((bind, 0))
        self.socket.connect((host, int(port)))
        self.socket.setblocking(False)
        self._dtls = SSL.Connection(context, None)
        self._dtls.set_connect_state()
        self.checked = self.secured = False
        self.checks_answered = 0
        self._next = 0.0
        self._srtp: tuple[pylibsrtp.Session, pylibsrtp.Session] | None = None
        self.sent = 0
        self.arrived: dict[int, bytes] = {}

    def check(self) -> None:
        pairs = [
            (stun.USERNAME, f"{self._ufrag}:peer".encode()),
            (stun.PRIORITY, bytes(4)),
            (stun.ICE_CONTROLLING, bytes(8)),
            (stun.USE_CANDIDATE, b""),
        ]
        self.socket.send(stun.message(stun.BINDING_REQUEST, pairs, password=self._password))

    def due(self, now: float) -> None:
        """Send what has had no answer, or keep consent."""
        if now < self._next:
            return
        self._next = now + (_CHECK_S if self.secured else _AGAIN_S)
        if not self.checked or self.secured:
            self.check()
        else:
            self._dtls.DTLSv1_handle_timeout()
            self._flush()

    def readable(self) -> None:
        while True:
            try:
                data = self.socket.recv(4096)
            except BlockingIOError:
                return
            if stun.KINDS[data[0]] == stun.Kind.STUN:
                assert stun.message_type(data) == stun.BINDING_SUCCESS, data.hex()
                self.checks_answered += 1
                if not self.checked:
                    self.checked = True
                    self._go_on()
            elif stun.KINDS[data[0]] == stun.Kind.DTLS and not self.secured:
                self._dtls.bio_write(data)
                self._go_on()
            elif stun.KINDS[data[0]] == stun.Kind.RTP and self._srtp and not is_rtcp(data):
                packet = Packet.parse(self._srtp[1].unprotect(data))
                self.arrived[packet.timestamp] = packet.payload

    def say(self, opus: bytes) -> None:
        """Send the next 20 ms."""
        assert self._srtp is not None
        packet = Packet(111, self.sent & 0xFFFF, self.sent * 960, 1, opus)
        self.sent += 1
        self.socket.send(self._srtp[0].protect(bytes(packet)))

    def _go_on(self) -> None:
        try:
            self._dtls.do_handshake()
        except SSL.WantReadError:
            pass
        else:
            certificate = self._dtls.get_peer_certificate()
            assert certificate is not None
            assert certificate.digest("sha256").decode() == self._fingerprint, "whom we reached is whom we called"
            self._srtp = _srtp(self._dtls)
            self.secured = True
        self._flush()
        self._next = time.monotonic() + _AGAIN_S

    def _flush(self) -> None:
        try:
            data = self._dtls.bio_read(65536)
        except SSL.WantReadError:
            return
        self.socket.send(data)

    def close(self) -> None:
        self.socket.close()


def _srtp(dtls: SSL.Connection) -> tuple[pylibsrtp.Session, pylibsrtp.Session]:
    """To send and to receive with, of a DTLS client (RFC 5764 section 4.2)."""
    name = dtls.get_selected_srtp_profile()
    profile = next(each for each in SRTP_PROFILES if each.openssl_profile == name)
    secret = dtls.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (profile.key_length + profile.salt_length))
    ways = (pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND)
    out, into = (
        pylibsrtp.Session(
            pylibsrtp.Policy(
                key=profile.get_key_and_salt(secret, index), ssrc_type=way, srtp_profile=profile.libsrtp_profile
            )
        )
        for index, way in enumerate(ways)
    )
    return out, into


class LightCalls:
    """Many, in one loop."""

    def __init__(self, url: str, bind: str) -> None:
        many_descriptors()
        self._url, self._bind = urlsplit(url), bind
        self._certificate = RTCCertificate.generateCertificate()
        self._context = self._certificate._create_ssl_context(SRTP_PROFILES)
        self._http = http.client.HTTPConnection(self._url.netloc, timeout=30)
        self._epoll = select.epoll()
        self.calls: list[LightCall] = []
        self._by_fd: dict[int, LightCall] = {}

    def set_up(self, count: int, timeout_s: float, direction: str = "sendonly") -> None:
        """Have so many more, each with its handshake done."""
        deadline = time.monotonic() + timeout_s
        wanted = len(self.calls) + count
        while len(self.calls) < wanted or not all(call.secured for call in self.calls):
            assert time.monotonic() < deadline, (
                f"{sum(call.secured for call in self.calls)} of {wanted} within {timeout_s} s"
            )
            if len(self.calls) < wanted and sum(not call.secured for call in self.calls) < _AT_ONCE:
                self._add(direction)
            self.turn(0.0 if len(self.calls) < wanted else 0.01)

    def turn(self, wait_s: float) -> None:
        """Take what has come, and send what is due."""
        for fd, _ in self._epoll.poll(wait_s, 256):
            self._by_fd[fd].readable()
        now = time.monotonic()
        for call in self.calls:
            call.due(now)

    def _add(self, direction: str) -> None:
        self._http.request("POST", self._url.path, self.offer(direction), {"Content-Type": "application/sdp"})
        response = self._http.getresponse()
        text = response.read().decode()
        assert response.status == 201, f"{response.status}: {text}"
        call = LightCall(self._bind, text, self._context)
        self.calls.append(call)
        self._by_fd[call.socket.fileno()] = call
        self._epoll.register(call.socket, select.EPOLLIN)

    def offer(self, direction: str = "sendonly") -> bytes:
        fingerprint = self._certificate.getFingerprints()[0]
        lines = [
            "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0", "a=mid:0", f"a={direction}", "a=rtcp-mux",
            "a=rtpmap:111 opus/48000/2", f"a=ice-ufrag:{os.urandom(4).hex()}", f"a=ice-pwd:{os.urandom(16).hex()}",
            f"a=fingerprint:{fingerprint.algorithm} {fingerprint.value}", "a=setup:actpass",
        ]  # fmt: skip
        return ("\r\n".join(lines) + "\r\n").encode()

    def close(self) -> None:
        self._http.close()
        self._epoll.close()
        for call in self.calls:
            call.close()


@contextmanager
def light_calls(url: str, bind: str) -> Iterator[LightCalls]:
    made = LightCalls(url, bind)
    try:
        yield made
    finally:
        made.close()
