"""The ledger as a result file holds it."""

from __future__ import annotations

from testbed.experiment.accounting import Accounts
from testbed.measure.result_parts import AttributionRecord, DropRecord, LedgerRecord, RemainderRecord

#: Beyond so many EVs those that lost the most stand for all.
MOST_ATTRIBUTIONS = 2_000


def drop_records(accounts: Accounts) -> tuple[DropRecord, ...]:
    """Every place that dropped packets."""
    return tuple(DropRecord(hop=drop.hop, cause=drop.cause, packets=drop.packets) for drop in accounts.ledger.drops)


def ledger_record(accounts: Accounts) -> LedgerRecord:
    """The sums, the remainders, and what is known of each EV."""
    ledger = accounts.ledger
    found = sorted(accounts.attributions, key=lambda one: -one.lost)[:MOST_ATTRIBUTIONS]
    return LedgerRecord(
        sent=ledger.sent,
        delivered=ledger.delivered,
        in_flight=ledger.in_flight,
        others_sent=ledger.others_sent,
        others_received=ledger.others_received,
        copies=ledger.copies,
        remainders=tuple(RemainderRecord(place=one.place, packets=one.packets) for one in ledger.remainders),
        unknown=ledger.unknown,
        attributions=tuple(
            AttributionRecord(
                flow=one.flow,
                ev=one.ev,
                lost=one.lost,
                certain=tuple(
                    DropRecord(hop=hop, cause=cause, packets=packets) for (hop, cause), packets in one.certain.items()
                ),
                possible=tuple(f"{hop}: {cause}" for hop, cause in one.possible),
            )
            for one in found
        ),
    )
