"""A process that notes when a processor stood still; run by its path, standard library only (see testbed.pauses).

A thread on each processor sleeps two milliseconds at a time. Where it is woken late, and was not waiting for its turn
meanwhile, nothing ran there: the machine's hypervisor had given the processor to somebody else.

Arguments: the processors' numbers. Records go to standard output; it ends when standard input does.
"""

import os
import struct
import sys
import threading
import time

PERIOD_NS = 2_000_000
#: Less than this is what an idle processor takes to wake up, and what a busy kernel does in one go.
LEAST_NS = 500_000
#: A record: CLOCK_REALTIME at its end, its length, the processor.
RECORD = struct.Struct("<qqi")
MOST_RECORDS = 100_000


def _queued_ns(file: int) -> int:
    # Second word of schedstat: how long the thread could have run and had no processor.
    return int(os.pread(file, 96, 0).split()[1])


def watch(processor: int) -> None:
    """Watch one processor for ever."""
    os.sched_setaffinity(0, {processor})
    file = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
    records = 0
    while records < MOST_RECORDS:
        queued, asleep = _queued_ns(file), time.monotonic_ns()
        time.sleep(PERIOD_NS * 1e-9)  # How late it ends is what is measured.
        woken = time.monotonic_ns()
        late = woken - asleep - PERIOD_NS
        if late < LEAST_NS:
            continue
        length = late - (_queued_ns(file) - queued)
        if length >= LEAST_NS:
            # In one write, so that those of two threads do not mix.
            os.write(1, RECORD.pack(time.time_ns() - (time.monotonic_ns() - woken), length, processor))
            records += 1


def main() -> None:
    """Watch the processors named on the command line until standard input ends."""
    for word in sys.argv[1:]:
        threading.Thread(target=watch, args=(int(word),), daemon=True).start()
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    main()
