"""``sendmmsg(2)`` and ``recvmmsg(2)`` on arrays: the kernel's structures as numpy dtypes. 64-bit Linux."""

from __future__ import annotations

import ctypes

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]

#: ``sendmmsg(2)`` on addresses: descriptor, address of the first :data:`MMSGHDR`, how many, flags. Returns how many
#: were taken, or -1 with the errno in ``ctypes.get_errno()``.
sendmmsg = _libc.sendmmsg
_libc.recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
#: ``recvmmsg(2)`` on addresses: the same, and that of a timespec. Returns how many came. Of a message, ``sent`` is then
#: the bytes received.
recvmmsg = _libc.recvmmsg

IOVEC = np.dtype([("base", "u8"), ("length", "u8")])
SOCKADDR_IN6 = np.dtype([("family", "u2"), ("port", ">u2"), ("flowinfo", ">u4"), ("address", "V16"), ("scope", "u4")])
MMSGHDR = np.dtype(
    {
        "names": ["name", "name_length", "iov", "iov_length", "control", "control_length", "flags", "sent"],
        "formats": ["u8", "u4", "u8", "u8", "u8", "u8", "i4", "u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)
