"""Which hosts send to which."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from testbed.addressing import AddressPlan
from testbed.errors import UsageError, nearest
from testbed.lab import Lab

Pair = tuple[str, str]

_PATTERNS = ("all", "permutation")


def choose_pairs(lab: Lab, addresses: AddressPlan, pairs: str | Iterable[Pair], seed: int) -> list[Pair]:
    """The pairs of a pattern, or the given ones, each with at least one usable path.

    Args:
        lab: whose hosts.
        addresses: its paths.
        pairs: ``permutation`` (every host sends to one other and receives from one other, drawn from ``seed``),
            ``all`` (every ordered pair), or pairs of host names.
        seed: for ``permutation``.

    Raises UsageError for an unknown pattern or when nothing is left, LabError for an unknown host.
    """
    hosts = list(lab.topology.hosts)
    if pairs == "all":
        chosen = [(src, dst) for src in hosts for dst in hosts if src != dst]
    elif pairs == "permutation":
        chosen = _permutation(hosts, seed)
    elif isinstance(pairs, str):
        raise UsageError(
            f"there is no pattern of pairs called {pairs!r}",
            expected=" or ".join(_PATTERNS),
            nearest=nearest(pairs, _PATTERNS),
        )
    else:
        chosen = list(dict.fromkeys(pairs))
    usable = [(src, dst) for src, dst in chosen if src != dst and addresses.evs(src, dst)]
    if not usable:
        raise UsageError("no pair of hosts is left that has a path", found=f"{len(hosts)} hosts, pairs {pairs!r}")
    return usable


def choose_evs(addresses: AddressPlan, pair: Pair, wanted: Sequence[int] | None) -> tuple[int, ...]:
    """The EVs of a pair that are wanted, all of them where that is None. Raises UsageError when none is left."""
    usable = addresses.evs(*pair)
    chosen = usable if wanted is None else tuple(ev for ev in usable if ev in set(wanted))
    if not chosen:
        raise UsageError(
            "none of the chosen EVs is a path of this pair",
            where=f"{pair[0]}>{pair[1]}",
            found=", ".join(f"0x{ev:04x}" for ev in wanted or ())[:200],
            expected=f"some of its {len(usable)}, `testbed path {pair[0]} {pair[1]} --all` lists them",
        )
    return chosen


def _permutation(hosts: list[str], seed: int) -> list[Pair]:
    """A random cyclic order: nobody sends to itself, and every host is in it."""
    order = list(hosts)
    random.Random(seed).shuffle(order)  # noqa: S311 - a workload's choice, not a secret
    return [(order[i], order[(i + 1) % len(order)]) for i in range(len(order))] if len(order) > 1 else []


def ring(lab: Lab, addresses: AddressPlan) -> list[Pair]:
    """Every host to the next, the last to the first. Raises UsageError for a pair without a path."""
    hosts = list(lab.topology.hosts)
    pairs = [(host, hosts[(at + 1) % len(hosts)]) for at, host in enumerate(hosts)] if len(hosts) > 1 else []
    broken = [f"{src}>{dst}" for src, dst in pairs if not addresses.evs(src, dst)]
    if broken or not pairs:
        found = ", ".join(broken) or f"{len(hosts)} hosts"
        raise UsageError("these hosts make no ring", found=found, expected="two hosts or more, neighbours with a path")
    return pairs


def incast(lab: Lab, addresses: AddressPlan, *, victim: bool = True) -> list[Pair]:
    """Everybody to the last host; with a victim also one of the senders to a host that shares its T0 with the last.

    The victim is the flow that must not suffer: its destination hangs on the same switches as the one overrun.

    Raises UsageError where the lab has too few hosts for it.
    """
    hosts = list(lab.topology.hosts)
    target = hosts[-1]
    senders = [host for host in hosts[:-1] if addresses.evs(host, target)]
    per_t0 = lab.shape.hosts_per_t0
    own_t0 = lab.shape.host(target) // per_t0
    bystanders = [host for host in senders if lab.shape.host(host) // per_t0 == own_t0]
    pairs = [(host, target) for host in senders if not victim or host not in bystanders[:1]]
    if victim:
        others = [host for host, _ in pairs if bystanders and addresses.evs(host, bystanders[0])]
        if not others:
            raise UsageError(
                "this lab is too small for an incast with a victim",
                found=f"{len(hosts)} hosts",
                expected="two hosts on the last T0, and one elsewhere",
            )
        pairs.append((others[0], bystanders[0]))
    return pairs
