"""A client's calls are made from the address that it is told, and from no other."""

from __future__ import annotations

import pytest

from testbed.errors import UsageError

ice = pytest.importorskip("aioice.ice")


def test_one_address_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from testbed.voice.client.binding import only_from

    # Undone afterwards, whoever changes it meanwhile.
    monkeypatch.setattr(ice, "get_host_addresses", ice.get_host_addresses)
    only_from("2001:db8:0::1")
    assert ice.get_host_addresses(use_ipv4=True, use_ipv6=True) == ["2001:db8::1"]


@pytest.mark.parametrize("wrong", ["", "h0", "192.0.2.1:80", "::1%lo0x"])
def test_what_is_no_address_is_refused(wrong: str) -> None:
    from testbed.voice.client.binding import only_from

    with pytest.raises(UsageError, match="no address"):
        only_from(wrong)
