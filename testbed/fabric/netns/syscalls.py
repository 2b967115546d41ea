"""The few Linux system calls that Python 3.11 does not offer, through libc.

Standard library only, for the keeper and the helper that joins a namespace import nothing else.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x2008_0522
_CAP_SYS_ADMIN = 21
_AF_PACKET, _ETH_P_ALL = 17, 3
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283}
_MEMBARRIER_GLOBAL = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2) for a descriptor of a namespace of ``kind`` (a CLONE_NEW* flag). Raises OSError."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """mount(2) without data. Raises OSError."""
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None), f"mount {target}")


def bind_packets(fd: int, interface: int) -> None:
    """Have a packet socket receive every protocol on an interface, by index; 0, which Python refuses, for all.

    Raises OSError.
    """
    address = struct.pack("=HHiHBB8x", _AF_PACKET, socket.htons(_ETH_P_ALL), interface, 0, 0, 0)
    _check(_libc.bind(ctypes.c_int(fd), address, ctypes.c_uint(len(address))), "bind")


def wait_for_packets_under_way() -> None:
    """Return once every processor has left the packet it was at: after a rule went, nothing counts by it any more.

    membarrier(2) waits for that, some 10 ms; where it is refused the request that took the rule away has to do.
    """
    number = _MEMBARRIER.get(os.uname().machine)
    if number is not None:
        _libc.syscall(ctypes.c_long(number), _MEMBARRIER_GLOBAL, 0, 0)


def set_parent_death_signal(number: int = signal.SIGKILL) -> None:
    """Have the kernel signal this process when the thread that made it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0), "prctl")


def become_subreaper() -> None:
    """Adopt descendants whose parents end, as init does."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0), "prctl")


def has_cap_sys_admin() -> bool:
    """Whether this process may make namespaces without a user namespace of its own."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def keep_capabilities_over_exec() -> None:
    """Make every permitted capability inheritable and ambient.

    An ordinary user's processes lose theirs at execve otherwise, even inside a user namespace that they own.
    Raises OSError.
    """
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, data), "capget")
    effective_lo, permitted_lo, _, effective_hi, permitted_hi, _ = struct.unpack("=6I", data.raw)
    wanted = struct.pack("=6I", effective_lo, permitted_lo, permitted_lo, effective_hi, permitted_hi, permitted_hi)
    _check(_libc.capset(header, wanted), "capset")
    permitted = permitted_hi << 32 | permitted_lo
    for capability in range(permitted.bit_length()):
        if permitted >> capability & 1:
            _check(
                _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, ctypes.c_ulong(capability), 0, 0), "prctl ambient"
            )


def map_own_ids(uid: int, gid: int) -> None:
    """Map ``uid`` and ``gid`` to themselves in the user namespace just entered. Raises OSError."""
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as mapping:
            mapping.write(line)
