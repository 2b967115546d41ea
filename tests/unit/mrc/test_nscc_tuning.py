"""Settings from a lab's numbers, and what a full receive ring asks for."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.mrc.nscc import BackPressure, nscc_for
from testbed.mrc.settings import NsccSettings

PACKET = 4096


class TestLab:
    def test_the_laptop_by_hand(self) -> None:
        knobs = nscc_for(100_000_000, 8, 1000)
        # 70% of 8 x 144,000 bytes of frames, as payload.
        assert knobs.max_cwnd == round(0.7 * 8 * 144_000 * 4096 / 4238) == 779_380
        # a = 650,000 / 150,000, b = 6.5 / 12: 4 a b packets of 4,096 bytes over 6.5 ms.
        assert knobs.alpha == pytest.approx(4 * (650 / 150) * (6.5 / 12) * PACKET / 6_500_000, rel=1e-3)
        assert knobs.eta == round(0.15 * 650 / 150 * PACKET)
        assert knobs.fi_scale == pytest.approx(0.25 * 650 / 150, rel=1e-3)
        # A fifth of the queue between 8 senders and 3 round trips.
        assert knobs.fi == round(0.2 * 8 * 144_000 * 4096 / 4238 / 24)
        # 80% of 144,000 bytes at 12.5 MB/s.
        assert knobs.qa_threshold_ns == 9_216_000
        assert knobs.initial_cwnd == round(0.2 * 8 * 144_000 * 4096 / 4238)

    def test_a_port_holds_its_share_of_the_window_with_frames_and_room_to_spare(self) -> None:
        for rate, scale in ((100_000_000, 1000), (25_000_000, 4000), (200_000_000, 500)):
            knobs = nscc_for(rate, 8, scale)
            queue = max(rate / 8 * 0.010, 144_000)
            assert knobs.max_cwnd / 8 * 4238 / 4096 + 10 * 4238 <= queue

    def test_the_defaults_are_those_of_the_laptop(self) -> None:
        assert NsccSettings() == nscc_for(100_000_000, 8, 1000)

    def test_a_time_scale_stretches_times_and_keeps_windows(self) -> None:
        one, four = nscc_for(100_000_000, 8, 1000), nscc_for(25_000_000, 8, 4000)
        assert (four.base_rtt_ns, four.target_delay_ns) == (4 * one.base_rtt_ns, 4 * one.target_delay_ns)
        assert (four.max_cwnd, four.fi, four.eta) == (one.max_cwnd, one.fi, one.eta)

    def test_below_scale_1000_times_are_those_software_can_follow(self) -> None:
        assert nscc_for(None, 8, 1).base_rtt_ns == nscc_for(None, 8, 1000).base_rtt_ns

    def test_unshaped_the_window_covers_what_software_carries(self) -> None:
        knobs = nscc_for(None, 8, 1000)
        assert knobs.max_cwnd >= 60_000 * 0.0065 * PACKET
        assert knobs.max_cwnd // PACKET == 585

    def test_a_shallow_queue_lowers_target_threshold_and_window(self) -> None:
        shallow = nscc_for(100_000_000, 8, 1000, queue_bytes=50_000)  # 4 ms
        assert (shallow.target_delay_ns, shallow.qa_threshold_ns) == (2_400_000, 3_200_000)
        assert shallow.max_cwnd < 8 * 50_000

    def test_one_plane_has_an_eighth_of_eight(self) -> None:
        assert nscc_for(100_000_000, 1, 1000).max_cwnd == pytest.approx(
            nscc_for(100_000_000, 8, 1000).max_cwnd / 8, abs=1
        )

    @example(3_200_000_000, 1, 1000.0, 1)  # a queue of 2.5 ns: its shares round to the same
    @given(
        st.none() | st.integers(1_000, 10**12),
        st.integers(1, 64),
        st.floats(0.001, 1e6),
        st.none() | st.integers(1, 10**9),
    )
    def test_any_lab_has_settings(self, rate: int | None, planes: int, scale: float, queue: int | None) -> None:
        knobs = nscc_for(rate, planes, scale, queue_bytes=queue)
        assert knobs.min_cwnd <= knobs.max_cwnd
        assert knobs.target_delay_ns < knobs.qa_threshold_ns

    @pytest.mark.parametrize(
        ("rate", "planes", "scale", "queue", "where"),
        [
            (0, 8, 1000.0, None, "rate_bits"),
            (None, 0, 1000.0, None, "planes"),
            (None, 8, 0.0, None, "time_scale"),
            (1_000, 8, 1000.0, 0, "queue_bytes"),
        ],
    )
    def test_no_lab_is_told_by_name(
        self, rate: int | None, planes: int, scale: float, queue: int | None, where: str
    ) -> None:
        with pytest.raises(UsageError) as told:
            nscc_for(rate, planes, scale, queue_bytes=queue)
        assert told.value.where == where


class TestBackPressure:
    def test_none_up_to_half_then_straight_to_127_at_nine_tenths(self) -> None:
        asked = {fill: BackPressure().penalty(fill) for fill in (0.0, 0.5, 0.6, 0.75, 0.9, 1.0)}
        assert asked == {0.0: 0, 0.5: 0, 0.6: 32, 0.75: 79, 0.9: 127, 1.0: 127}

    def test_holds_at_one_until_a_quarter(self) -> None:
        ring = BackPressure()
        assert [ring.penalty(fill) for fill in (0.55, 0.5, 0.3, 0.26, 0.25, 0.4)] == [16, 1, 1, 1, 0, 0]

    @given(st.lists(st.floats(-1, 2)))
    def test_stays_in_seven_bits(self, fills: list[float]) -> None:
        ring = BackPressure()
        for fill in fills:
            assert 0 <= ring.penalty(fill) <= 127
