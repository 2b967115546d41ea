"""The ledger on a page and on a terminal: sums, places with their shares, marks on the drawing, what is left."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from testbed_reports.page import render_page
from testbed_reports.text import print_summary

from testbed.measure.result import Result
from testbed.measure.result_parts import AttributionRecord, DropRecord, LedgerRecord, RemainderRecord, Verdict
from tests.unit.reports.pages import read_page

DROPS = (
    DropRecord(hop="p0-t1-0", cause="no route for its uSID", packets=250),
    DropRecord(hop="p0-t0-0:t1-0", cause="queue full", packets=50),
)
LEDGER = LedgerRecord(
    sent=10_000,
    delivered=9_693,
    others_sent=4,
    others_received=4,
    remainders=(RemainderRecord(place="p0-t0-1, before it was routed", packets=7),),
    attributions=(
        AttributionRecord(flow="h0>h2", ev=9, lost=40, certain=(DropRecord(hop="p0-t1-0", cause="x", packets=30),)),
    ),
)


@pytest.fixture
def booked(reboot: Result) -> Result:
    return reboot.model_copy(
        update={
            "drops": DROPS,
            "ledger": LEDGER,
            "unexplained_packets": 7,
            "verdict": Verdict.FAIL,
            "reason": "7 packets are unexplained",
        }
    )


def test_the_page_has_sums_places_shares_and_the_remainder_without_a_script(booked: Result) -> None:
    section = read_page(render_page(booked)).one(id="losses")
    said = section.text()
    assert "10 000 packets sent, 9 693 delivered, 300 lost at named places, 0 in flight; unexplained: 7" in said
    assert "4 packets on the fabric were not this workload's" in said
    rows = section.all("table")[0].rows()
    assert [row[:3] for row in rows] == [
        ["p0-t1-0", "no route for its uSID", "250"],
        ["p0-t0-0:t1-0", "queue full", "50"],
        ["p0-t0-1, before it was routed", "unexplained", "7"],
    ]
    assert rows[0][3] == "2.5 %"
    assert section.all("table")[1].rows()[0][:4] == ["h0>h2", "0x0009", "40", "p0-t1-0: 30"]


def test_nodes_and_links_that_lost_packets_bear_the_count(booked: Result) -> None:
    tallies = [tally.text() for tally in read_page(render_page(booked)).all("text", "tally")]
    assert tallies == ["−50", "−250"]


def shown(result: Result) -> str:
    out = StringIO()
    print_summary(result, Console(file=out, width=140, color_system=None))
    return out.getvalue()


def test_the_terminal_shows_the_sums_in_a_few_lines(booked: Result) -> None:
    lines = [line.split() for line in shown(booked).splitlines()]
    assert ["sent", "10", "000"] in lines
    assert ["delivered", "9", "693"] in lines
    assert ["lost", "at", "p0-t1-0", "250", "no", "route", "for", "its", "uSID"] in lines
    assert ["unexplained", "7", "p0-t0-1,", "before", "it", "was", "routed:", "7"] in lines


def test_a_ledger_that_is_unknown_says_why_and_shows_no_number(booked: Result) -> None:
    ledger = LEDGER.model_copy(update={"unknown": "the fabric did not come to rest after the run", "remainders": ()})
    unknown = booked.model_copy(
        update={"ledger": ledger, "unexplained_packets": None, "verdict": Verdict.UNKNOWN, "reason": "unknown"}
    )
    assert "the fabric did not come to rest" in shown(unknown)
    assert "the fabric did not come to rest" in read_page(render_page(unknown)).one(id="losses").text()
