"""What a call's answer says and its checks prove: a ufrag, and the password that belongs to it and to the key.

The password is not drawn but computed. So a transceiver knows the calls of those before it, of which nobody is left to
tell the clients anything, and can revoke their consent (RFC 7675 section 5.2) with nothing kept anywhere.
"""

from __future__ import annotations

import binascii
import hashlib
from typing import Final

from testbed.voice import ufrag
from testbed.voice.keys import Keys
from testbed.voice.transceiver.ice import Credentials

#: 32 ice-chars and 192 bits; RFC 8839 asks for 128.
_PASSWORD_BYTES: Final = 24
_PERSON: Final = b"password"


def make(keys: Keys, cluster: int, transceiver: int) -> Credentials:
    """Of a new call."""
    number, key = keys.ufrag.current
    name = ufrag.encode(cluster, transceiver, number, key)
    return Credentials(name, _password(name.encode(), key))


def recall(name: bytes, keys: Keys, cluster: int, transceiver: int) -> Credentials | None:
    """Of a call that this transceiver, or one before it, made; None where no such one made the ufrag."""
    try:
        said = ufrag.decode(name, keys.ufrag.keys)
    except ufrag.UfragError:
        return None
    if (said.cluster, said.transceiver) != (cluster, transceiver):
        return None
    return Credentials(name.decode("ascii"), _password(name, keys.ufrag.keys[said.key]))


def _password(name: bytes, key: bytes) -> str:
    digest = hashlib.blake2s(name, digest_size=_PASSWORD_BYTES, key=key, person=_PERSON).digest()
    return binascii.b2a_base64(digest, newline=False).decode("ascii")
