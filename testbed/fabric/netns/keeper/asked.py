"""Requests of clients, read: what is lengths in a message and bytes in its payload."""

from __future__ import annotations

from testbed.fabric.netns.channel import Message
from testbed.fabric.netns.keeper.claims import Action, Part, Wanted
from testbed.fabric.netns.keeper.tallies import Tally


def batches(request: Message, payload: bytes) -> list[tuple[int, bytes]]:
    """The (namespace, messages) pairs of a request: lengths in the message, bytes in the payload."""
    found = []
    start = 0
    for namespace, length in request["batches"]:
        found.append((namespace, payload[start : start + length]))
        start += length
    return found


def wanted(claims: list[Message], payload: bytes) -> list[Wanted]:
    """Claims of a request: what each does and what restores it are lengths in the message, bytes in the payload."""
    start = 0

    def action(parts: list[tuple[str | None, int, int]], signals: list[tuple[int, int]]) -> Action:
        nonlocal start
        made = []
        for resource, namespace, length in parts:
            # Checked here: once claimed, nothing of it may fail but in the kernel.
            place, end = int(namespace), start + int(length)
            made.append(Part(None if resource is None else str(resource), place, payload[start:end]))
            start = end
        return Action(tuple(made), tuple((int(pid), int(number)) for pid, number in signals))

    def tally(told: tuple[str, int, int, int, str] | None) -> Tally | None:
        if told is None:
            return None
        nonlocal start
        label, namespace, stop, ask, table = told
        parts = payload[start : start + int(stop)], payload[start + int(stop) : start + int(stop) + int(ask)]
        start += int(stop) + int(ask)
        return Tally(str(label), int(namespace), *parts, str(table))

    return [
        Wanted(
            str(claim["resource"]),
            action(claim["do"], claim["do_signals"]),
            action(claim["base"], claim["base_signals"]),
            bool(claim["alone"]),
            frozenset(claim["after"]),
            frozenset(claim["tolerated"]),
            None if claim["closes"] is None else int(claim["closes"]),
            tally(claim["tally"]),
        )
        for claim in claims
    ]
