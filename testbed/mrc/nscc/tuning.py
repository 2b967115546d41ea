"""NSCC's settings from a lab's numbers.

UEC gives its constants for a reference network of 100 Gbit/s and 12 microseconds (150,000 bytes in flight) and scales
them by ``a``, this network's bandwidth-delay product over that one, and ``b``, the target delay over those 12
microseconds. A time scale leaves ``a`` and ``b`` as they are: what it takes from the rate it gives to the times.
What cannot be taken over, and why, for 8 planes of 100 Mbit/s at scale 1000 with 144,000-byte queues:

* 100 MB/s over the base RTT of 6.5 ms are 650,000 bytes. But that base is a figure of hardware, scaled; software on an
  empty fabric answers in some 0.3 to 1.5 ms. Delay is therefore counted from ``unloaded_rtt``, 1 ms, and from less
  where less is measured: a sender that joins a full queue never measures the empty one, and if it started from
  6.5 ms it would see next to no delay and take everything (UEC 3.6.13.7 names that danger). So nearly all of a window
  stands in queues, most of it in the sender's own eight ports, whose sojourn is part of the round trip.
* These hold 8 x 144,000 = 1,152,000 bytes of frames, 11.5 ms. Published drop thresholds are 5 products a plane; here
  they are 1.8, so a window of 1.5 products, 975,000 payload bytes or 1,009,000 of frames, would leave 12% of the queue
  for everything else. ``max_cwnd`` is therefore at most 70% of the queues: 779,000 bytes, 101,000 of frames in a port
  when nothing is on the way elsewhere. The remaining 43,000 bytes, ten frames, take the uneven parts of a batch,
  retransmissions and replies. That window keeps the ports busy up to a round trip of 7.8 ms: 6 ms more than
  software's own, so that neither it nor an ordinary wait for the processor leaves a port idle.
* One sender alone then settles at max_cwnd with 7 to 8 ms of delay: above the target of 6.5 ms, below quick adapt's
  threshold. It neither loses a packet nor starves. It is the window's bound, not marks, that holds it there:
  NSCC without marks or trims knows no decrease but quick adapt.
* Several senders to one port, or several destinations of one sender, do fill queues. Marks, where the fabric has them,
  bring delay back to the target. Where it has none (the last hop never has) and cannot trim, quick adapt must act
  before the queue drops: ``qa_threshold`` is 80% of a queue, 9.2 ms. Published qa_gate 3 lets it act only with less
  than an eighth of the window delivered, which suits many senders and queues of 5 products; here 0, always.
* Fair increase is 5 packets times ``a`` as published, but at most what lets 8 unmarked senders grow for three round
  trips, the time quick adapt takes to see and to act, within the last 20% of the queues: 9,300 bytes.
* A first window of max_cwnd, as published, relies on trimming where senders meet. Here it is those last 20%, 223,000
  bytes: a sender that joins overflows nothing, and one alone fills the ports with it up to a round trip of 2.2 ms.

In a packet by packet model of that fabric (one queue, no trims; tests/unit/mrc) one sender loses nothing; 2 to 15
marked ones share equally at 6 to 7.5 ms of delay and lose nothing. Unmarked, two and four share equally at 7.5 to 9 ms
(three packets lost at most, as they join); seven and more keep losing about 1 to 2%, and fifteen do not come to equal
shares within two seconds: their incast needs trimming. What the model leaves out: planes of uneven load.
"""

from __future__ import annotations

import math

from testbed.errors import UsageError
from testbed.mrc.settings import BASE_RTT_NS, SMALLEST_SCALE, NsccSettings

#: UEC 1.0 section 3.6.13.3: the network its constants are given for.
_REFERENCE_RTT_NS = 12_000
_REFERENCE_BDP = 150_000.0
#: Packets, times ``a``.
_FAIR, _ETA = 5.0, 0.15
#: Senders, and round trips of theirs, that fair increase leaves room for in a queue beyond quick adapt's threshold.
_SENDERS, _ROUND_TRIPS = 8, 3
#: Round trip of software over an empty fabric: the middle of 0.3 to 1.5 ms.
_UNLOADED_RTT_NS = 1_000_000
#: Payload of a full packet and its frame.
_PAYLOAD, _FRAME = 4096, 4238
#: About what the software itself can carry, packets a second, when nothing else limits it.
_SOFTWARE_RATE = 60_000
#: A port's queue in a lab that does not say: 10 ms, at least 16 packets of 9,000 bytes.
_QUEUE_S, _QUEUE_BYTES = 0.010, 144_000
#: Shares of a port's queue: for the target delay, for one sender's window, for quick adapt.
_TARGET_SHARE, _WINDOW_SHARE, _ADAPT_SHARE = 0.6, 0.7, 0.8


def nscc_for(rate_bits: int | None, planes: int, time_scale: float, *, queue_bytes: int | None = None) -> NsccSettings:
    """Settings of NSCC for a lab.

    Args:
        rate_bits: bit/s that a port is shaped to, time scale included; None where unshaped. Unshaped, the window
            covers 1.5 times what software carries in one base RTT, 60,000 packets a second: the receive ring must hold
            that many (585 packets at scale 1000), and back-pressure is the limit when it does not drain.
        planes: ports that a sender sprays over.
        time_scale: the lab's; below 1000 the times are those of 1000, which software can follow.
        queue_bytes: what a port's queue holds; the default of a lab that does not say where None.

    Raises:
        UsageError: a number from which no window follows.
    """
    _check("rate_bits", rate_bits, rate_bits is None or rate_bits > 0)
    _check("planes", planes, planes > 0)
    _check("time_scale", time_scale, time_scale > 0)
    _check("queue_bytes", queue_bytes, queue_bytes is None or queue_bytes > 0)
    scale = max(time_scale, SMALLEST_SCALE)
    base = round(BASE_RTT_NS * scale)
    software = float(_SOFTWARE_RATE * _PAYLOAD)
    if rate_bits is None:
        bdp = software * base * 1e-9
        return _settings(scale, base, bdp, target=base, room=math.inf, threshold=4 * base, most=1.5 * bdp)
    port = rate_bits / 8
    queue = float(queue_bytes or max(port * _QUEUE_S, _QUEUE_BYTES))
    bdp = min(port * planes, software) * base * 1e-9
    payload = queue * planes * _PAYLOAD / _FRAME
    drain = queue / port * 1e9
    target = max(1, round(min(base, _TARGET_SHARE * drain)))
    return _settings(
        scale,
        base,
        bdp,
        target=target,
        room=(1 - _ADAPT_SHARE) * payload,
        threshold=max(target + 1, round(_ADAPT_SHARE * drain)),
        most=min(1.5 * bdp, _WINDOW_SHARE * payload),
    )


def _settings(
    scale: float, base: int, bdp: float, *, target: int, room: float, threshold: int, most: float
) -> NsccSettings:
    a = bdp / _REFERENCE_BDP
    b = target / (_REFERENCE_RTT_NS * scale)
    return NsccSettings(
        base_rtt_ns=base,
        unloaded_rtt_ns=min(base, _UNLOADED_RTT_NS),
        target_delay_ns=target,
        max_cwnd=max(round(most), _PAYLOAD),
        initial_cwnd=max(round(min(most, room)), _PAYLOAD),
        min_cwnd=_PAYLOAD,
        alpha=float(f"{4 * a * b * _PAYLOAD / target:.4g}"),
        fi=float(round(min(_FAIR * a * _PAYLOAD, room / (_SENDERS * _ROUND_TRIPS)))),
        fi_scale=float(f"{0.25 * a:.4g}"),
        clear_delay_ns=round(base / 12),
        eta=float(round(_ETA * a * _PAYLOAD)),
        adjust_period_ns=base,
        adjust_bytes=8 * _PAYLOAD,
        gamma=0.8,
        max_md_jump=0.5,
        quick_adapt=True,
        qa_gate=0,
        qa_threshold_ns=threshold,
    )


def _check(name: str, value: float | None, holds: bool) -> None:
    if not holds:
        raise UsageError(f"no window follows from this {name}", where=name, found=str(value), expected="more than 0")
