"""Which of the machine's addresses calls are made from."""

from __future__ import annotations

import ipaddress

from aioice import ice

from testbed.errors import UsageError


def only_from(address: str) -> None:
    """Have all calls of this process take one address of the machine for a candidate. Raises UsageError."""
    try:
        # Not that of an interface alone: link-local addresses are not served.
        text = str(ipaddress.ip_address(address.replace("%", " ")))
    except ValueError:
        raise UsageError(
            "this is no address", where="--bind", found=address[:60], expected="such as 192.0.2.1 or 2001:db8::1"
        ) from None
    # aioice, at the version that is pinned, asks for them by this name.
    ice.get_host_addresses = lambda use_ipv4, use_ipv6: [text]  # noqa: ARG005
