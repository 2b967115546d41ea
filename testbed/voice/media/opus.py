"""Opus (RFC 6716) by the reference library, with loss concealment and in-band error correction, mono.

PyAV, which aiortc needs, carries the library, but offers neither: here it is called itself. Where PyAV was built
against the system's library, that one is used.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from pathlib import Path
from typing import Final

from testbed.errors import InfrastructureError

#: RTP's clock for Opus, whatever the audio's rate is (RFC 7587 section 4.1).
CLOCK: Final = 48000
#: The audio's rate on both sides of the codec, samples/s; one the codec has itself.
RATE: Final = 24000
FRAME_MS: Final = 20
SAMPLES: Final = RATE * FRAME_MS // 1000
FRAME_BYTES: Final = 2 * SAMPLES
TICKS: Final = CLOCK * FRAME_MS // 1000
#: RFC 6716 section 3.2: a packet holds at most 120 ms.
MOST_TICKS: Final = CLOCK * 120 // 1000
_MOST_SAMPLES: Final = RATE * 120 // 1000
_MOST_BYTES: Final = 1275
_VOIP: Final = 2048
_SET_BITRATE: Final = 4002
_SET_COMPLEXITY: Final = 4010
_SET_INBAND_FEC: Final = 4012
_SET_LOSS_PERCENT: Final = 4014
_BITRATE: Final = 32000
_COMPLEXITY: Final = 2
_EXPECTED_LOSS: Final = 5


class OpusError(ValueError):
    """The bytes are no Opus packet."""


@cache
def library() -> ctypes.CDLL:
    """The library. Raises InfrastructureError."""
    for name in (*_shipped(), ctypes.util.find_library("opus")):
        if name:
            try:
                return _declared(ctypes.CDLL(name))
            except (OSError, AttributeError):
                continue
    raise InfrastructureError(
        "the Opus library is not there",
        expected="the one that PyAV's wheel carries, or the system's",
        remedy="pip install 'mrc-testbed[voice]'; or, on Debian, apt install libopus0",
    )


def _shipped() -> list[str]:
    import av

    return [str(path) for path in sorted((Path(av.__file__).parent.parent / "av.libs").glob("libopus*.so*"))]


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    for create in (found.opus_decoder_create, found.opus_encoder_create):
        create.restype = pointer
    found.opus_decoder_create.argtypes = [number, number, pointer]
    found.opus_encoder_create.argtypes = [number, number, number, pointer]
    for destroy in (found.opus_decoder_destroy, found.opus_encoder_destroy):
        destroy.argtypes, destroy.restype = [pointer], None
    found.opus_decode.argtypes = [pointer, ctypes.c_char_p, number, pointer, number, number]
    found.opus_encode.argtypes = [pointer, ctypes.c_char_p, number, pointer, number]
    found.opus_packet_get_nb_samples.argtypes = [ctypes.c_char_p, number, number]
    found.opus_packet_has_lbrr.argtypes = [ctypes.c_char_p, number]
    return found


def ticks(packet: bytes) -> int:
    """How long a packet is, in ticks of RTP's clock. Raises OpusError."""
    count: int = library().opus_packet_get_nb_samples(packet, len(packet), CLOCK)
    if not 0 < count <= MOST_TICKS:
        raise OpusError("no Opus packet")
    return count


def has_correction(packet: bytes) -> bool:
    """Whether a packet carries the one before it a second time (RFC 6716 section 2.1.7)."""
    return bool(library().opus_packet_has_lbrr(packet, len(packet)) == 1)


class Decoder:
    """Packets to PCM of :data:`RATE`, 16 bits, mono."""

    def __init__(self) -> None:
        self._library = library()
        self._state = self._library.opus_decoder_create(RATE, 1, None)
        if not self._state:
            raise InfrastructureError("the Opus decoder cannot be made")
        self._pcm = ctypes.create_string_buffer(2 * _MOST_SAMPLES)

    def decode(self, packet: bytes) -> bytes:
        """PCM of a packet. Raises OpusError."""
        return self._call(packet, _MOST_SAMPLES, correct=False)

    def correct(self, following: bytes, of_ticks: int) -> bytes:
        """PCM of the packet before ``following``, from the copy in that one. Raises OpusError."""
        return self._call(following, of_ticks * RATE // CLOCK, correct=True)

    def conceal(self, of_ticks: int) -> bytes:
        """PCM in the place of a packet that is not there, as the codec continues what went before."""
        return self._call(None, of_ticks * RATE // CLOCK, correct=False)

    def _call(self, packet: bytes | None, samples: int, *, correct: bool) -> bytes:
        size = len(packet) if packet is not None else 0
        count = self._library.opus_decode(self._state, packet, size, self._pcm, samples, int(correct))
        if count < 0:
            raise OpusError(f"the decoder refuses a packet: {count}")
        return self._pcm.raw[: 2 * count]

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.opus_decoder_destroy(self._state)


class Encoder:
    """PCM to packets of :data:`FRAME_MS`."""

    def __init__(self) -> None:
        self._library = library()
        self._state = self._library.opus_encoder_create(RATE, 1, _VOIP, None)
        if not self._state:
            raise InfrastructureError("the Opus encoder cannot be made")
        for request, value in (
            (_SET_BITRATE, _BITRATE),
            (_SET_COMPLEXITY, _COMPLEXITY),
            (_SET_INBAND_FEC, 1),
            (_SET_LOSS_PERCENT, _EXPECTED_LOSS),
        ):
            self._library.opus_encoder_ctl(ctypes.c_void_p(self._state), request, ctypes.c_int(value))
        self._packet = ctypes.create_string_buffer(_MOST_BYTES)

    def encode(self, pcm: bytes) -> bytes:
        """The packet of :data:`FRAME_BYTES` bytes of PCM."""
        assert len(pcm) == FRAME_BYTES
        count = self._library.opus_encode(self._state, pcm, SAMPLES, self._packet, _MOST_BYTES)
        assert count > 0, count
        return self._packet.raw[:count]

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.opus_encoder_destroy(self._state)
