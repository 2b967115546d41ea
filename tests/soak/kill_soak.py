"""Kill soak: whatever of an experiment dies, and whenever, nothing of its fabric stays.

    python -m tests.soak.kill_soak --rounds 200 --seed 1

Each round starts a whole experiment (a fabric brought up, probes, a reboot, its end) as a process of its own, and at a
random moment of its life kills a random part of it: the runner, the warden, the keeper, or a probe agent. Then
no process of it may be left, no namespace, no socket, mount or file; see :class:`Round`. Ends with a table
of what was hit when, or at the first violation with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from testbed.fabric.netns.keeper.namespaces import FIRST_FD
from tests.soak import runner as experiment
from tests.soak import traces

ROOT = Path(__file__).resolve().parents[2]
PHASES = ("import", "up", "start", "send", "reboot", "finish", "down")
PARTS = ("runner", "warden", "keeper", "sender", "receiver")
#: Of the phases in which the fabric is there, so that a namespace can be watched.
WATCHED = PHASES[PHASES.index("start") :]

PROCESSES_GONE_S = 2.0
OBJECTS_GONE_S = 5.0
#: A runner whose fabric or agents were killed must come to its own end, with an error.
RUNNER_ENDS_S = 10.0
#: Experiments measure one at a time on a machine: a round may have to wait for somebody else's measurement.
PHASE_DEADLINE_S = 300.0
_POLL_S = 0.01
#: As root, files are told apart from everybody else's, another soak's too, by this group, which nobody is in. An
#: ordinary user has no such group: the user's round gets a folder for temporary files that nobody else puts any in,
#: and in the folders that all share, a file of its own is known by the round's name.
_GROUP = 1_000_000 + os.getpid()


class ViolationError(Exception):
    """Something stayed that should not, or a runner did not end as it should."""


@dataclass
class Outcome:
    """What became of one round. Times in seconds; None where not measured."""

    phase: str
    part: str
    signal: str
    runner_ended_s: float
    processes_gone_s: float
    namespace_released_s: float | None


@dataclass
class Pace:
    """How long each phase takes, from the rounds that got that far."""

    seen: dict[str, list[float]] = field(default_factory=dict)

    def note(self, times: dict[str, float]) -> None:
        for here, following in zip((*PHASES,), (*PHASES[1:], "ended"), strict=True):
            if here in times and following in times:
                self.seen.setdefault(here, []).append(times[following] - times[here])

    def of(self, phase: str) -> float:
        return statistics.median(self.seen[phase])

    def draw(self, number: int, rng: random.Random) -> tuple[str, float]:
        """A moment: every other one uniform over the whole life, the rest phase by phase, for some last 5 ms."""
        (phase,) = rng.choices(PHASES, [self.of(phase) for phase in PHASES])
        if number % 2:
            phase = PHASES[number // 2 % len(PHASES)]
        return phase, rng.uniform(0, self.of(phase))


class Round:
    """One experiment, one kill, and the search for what stayed."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self._name = name
        self._rng = rng
        self._stack = ExitStack()
        self._errors = os.memfd_create("errors", os.MFD_CLOEXEC)
        self._stack.callback(os.close, self._errors)
        self._folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}."))
        self._files = self._found_files()
        self._mounts = traces.mounts()
        started = time.monotonic()
        self._runner = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.runner", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
            | {"SOAK_ROUND": name, "TMPDIR": self._folder},
            group=_GROUP if os.getuid() == 0 else None,
        )
        self._stack.callback(self._end_runner)
        assert self._runner.stdout is not None
        self._said = self._stack.enter_context(self._runner.stdout)
        os.set_blocking(self._said.fileno(), False)
        self.times = {"import": started}
        self._ended = False

    def close(self) -> None:
        self._stack.close()

    def _found_files(self) -> set[str]:
        """Files that are this round's, or may be."""
        shared = traces.files_of_group(_GROUP) if os.getuid() == 0 else traces.files_named(self._name)
        return shared | traces.files_in(self._folder)

    def _end_runner(self) -> None:
        if self._runner.poll() is None:
            self._runner.kill()
            self._runner.wait()

    # -- following the runner -----------------------------------------------------------------------------------

    def read_until(self, deadline: float, wanted: str | None = None) -> bool:
        """Take in what the runner says; True once it has said ``wanted``, or has ended."""
        poll = select.poll()
        poll.register(self._said, select.POLLIN)
        while wanted is None or wanted not in self.times:
            if self._ended:
                return True
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
            text = self._said.read()
            now = time.monotonic()
            self._ended = not text
            self.times |= {phase: now for phase in (text or b"").decode().split() if phase not in self.times}
        return True

    @property
    def phase(self) -> str:
        """The one it is in."""
        return max(self.times, key=lambda phase: (self.times[phase], (*PHASES, "ended").index(phase)))

    def run_to_the_end(self) -> None:
        """Let it be; raises ViolationError when an undisturbed experiment fails."""
        self.read_until(time.monotonic() + PHASE_DEADLINE_S, "ended")
        code = self._runner.wait(RUNNER_ENDS_S)
        if code:
            raise ViolationError(f"an undisturbed experiment ended with exit code {code}\n{self._told()}")

    def _told(self) -> str:
        return os.pread(self._errors, 1 << 16, 0).decode(errors="replace")

    # -- the kill -----------------------------------------------------------------------------------------------

    def kill(self, phase: str, delay_s: float, watch: bool) -> Outcome:
        """Wait for the moment, kill, and prove that nothing stays. Raises ViolationError."""
        # The shortest phase is over before a tree is looked at: for that one it is looked at before.
        early = phase == "down"
        if not self.read_until(time.monotonic() + PHASE_DEADLINE_S, "finish" if early else phase):
            raise ViolationError(f"the runner did not reach {phase!r} in {PHASE_DEADLINE_S:.0f} s: {self._told()}")
        moment = time.monotonic() + delay_s
        watcher = self._watch() if watch and phase in WATCHED else None
        tree = traces.look_at(self._runner.pid) if early else None
        if early:
            self.read_until(time.monotonic() + PHASE_DEADLINE_S, phase)
            moment = time.monotonic() + delay_s
        self.read_until(moment)
        tree = tree or traces.look_at(self._runner.pid)
        try:
            return self._strike(tree, watcher)
        finally:
            tree.close()

    def _strike(self, tree: traces.Tree, watcher: Watcher | None) -> Outcome:
        part = self._rng.choice([part for part in PARTS if part in tree.parts])
        number = signal.SIGKILL
        if part == "runner":
            number = self._rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        phase = self.phase
        killed = time.monotonic()
        hit = tree.signal(part, number)
        outcome = Outcome(phase if hit else "too late", part, number.name, 0.0, 0.0, None)
        try:
            self._follow(tree, outcome, killed, watcher)
        except ViolationError as violation:
            raise ViolationError(
                f"{self._name}: {number.name} to the {part} (pid {tree.parts[part][0]}) during {phase!r}, "
                f"{killed - self.times[phase]:.4f} s into it: {violation}\nthe runner said:\n{self._told()}"
            ) from violation
        return outcome

    def _follow(self, tree: traces.Tree, outcome: Outcome, killed: float, watcher: Watcher | None) -> None:
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        if outcome.part in ("warden", "keeper"):
            fabric = {part: held for part, held in tree.parts.items() if part != "runner"}
            _wait_ended(fabric, killed + PROCESSES_GONE_S)
        try:
            code = self._runner.wait(max(0.01, killed + RUNNER_ENDS_S - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ViolationError(f"the runner has not ended {RUNNER_ENDS_S:.0f} s after the kill") from None
        ended = time.monotonic()
        self._judge_end(code, outcome)
        _wait_ended(tree.parts, ended + PROCESSES_GONE_S)
        _wait(lambda: traces.marked(self._name), ended + PROCESSES_GONE_S, "processes")
        outcome.runner_ended_s, outcome.processes_gone_s = ended - killed, time.monotonic() - ended
        _wait(lambda: traces.sockets(self._name), ended + PROCESSES_GONE_S, "sockets")
        _wait(lambda: traces.inside(tree.namespaces, boot), ended + OBJECTS_GONE_S, "processes in its namespaces")
        if watcher is not None:
            outcome.namespace_released_s = watcher.wait_released(ended + OBJECTS_GONE_S) - ended
        for what, found in (("mounts", traces.mounts() - self._mounts), ("files", self._found_files() - self._files)):
            if found:
                raise ViolationError(f"new {what}: {sorted(found)}")

    def _judge_end(self, code: int, outcome: Outcome) -> None:
        """A killed runner ends by the signal; any other ends by itself, with an error meant for people, or done."""
        told = self._told()
        if outcome.part == "runner" and outcome.signal != "SIGINT":
            return
        if outcome.part == "runner":
            # Nobody catches an interrupt while modules are imported; in the last instructions it may come too late.
            late = outcome.phase in ("down", "ended", "too late")
            expected = {experiment.INTERRUPTED, -signal.SIGINT} | ({0} if late else set())
            if code not in expected:
                raise ViolationError(f"an interrupted runner ended with exit code {code}, not one of {expected}")
            return
        if code and ("Traceback" in told or "Error: " not in told):
            raise ViolationError(f"the runner ended with exit code {code}, and no error meant for people")
        if code < 0:
            raise ViolationError(f"the runner was itself ended by signal {-code}")

    def _watch(self) -> Watcher | None:
        tree = traces.look_at(self._runner.pid)
        try:
            # A host's namespace: a reboot compares the switches around it with their plan.
            keeper = tree.parts["keeper"][0]
            return self._stack.enter_context(Watcher(keeper))
        except KeyError:
            return None
        finally:
            tree.close()


class Watcher:
    """An executed observer of one namespace; see :mod:`tests.soak.observer`."""

    def __init__(self, keeper: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.observer", str(keeper), str(FIRST_FD)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._read(time.monotonic() + PHASE_DEADLINE_S, "watching")

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def wait_released(self, deadline: float) -> float:
        """When the namespace was released. Raises ViolationError."""
        self._read(deadline, "released")
        return time.monotonic()

    def _read(self, deadline: float, wanted: str) -> None:
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise ViolationError(f"the observer did not say {wanted!r} in time: the namespace is still there")
        found = os.read(self._process.stdout.fileno(), 64).decode().strip()
        if found != wanted:
            raise ViolationError(f"the observer said {found!r}, not {wanted!r}")


def _wait_ended(parts: dict[str, tuple[int, int]], deadline: float) -> None:
    poll = select.poll()
    waiting = {pidfd: f"{part} ({pid})" for part, (pid, pidfd) in parts.items()}
    for pidfd in waiting:
        poll.register(pidfd, select.POLLIN)
    while waiting:
        ended = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ended:
            raise ViolationError(f"still alive: {', '.join(waiting.values())}")
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            del waiting[pidfd]


def _wait(left: Callable[[], object], deadline: float, what: str) -> None:
    while found := left():
        if time.monotonic() > deadline:
            raise ViolationError(f"{what} are left: {found}")
        time.sleep(_POLL_S)  # The poll interval of a wait with a deadline.


def soak(rounds: int, seed: int, progress: Callable[[int, Outcome], None] = lambda *_: None) -> list[Outcome]:
    """Run so many rounds; ``seed`` draws moments (as shares of what each phase takes here) and parts.

    Raises ViolationError at the first violation.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell ignores it for what it starts in the background, and the runners would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = random.Random(seed)
    pace = Pace()
    outcomes = []
    for number in range(-1, rounds):
        this = Round(f"soak-{os.getpid()}-{number}", rng)
        try:
            if number < 0:
                this.run_to_the_end()
            else:
                phase, delay_s = pace.draw(number, rng)
                outcomes.append(this.kill(phase, delay_s, watch=rng.random() < 0.5))
                progress(number, outcomes[-1])
            pace.note(this.times)
        finally:
            this.close()
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Moments by parts, and how long what took."""
    counts = Counter((outcome.phase, _column(outcome)) for outcome in outcomes)
    columns = sorted({column for _, column in counts}, key=lambda column: (PARTS.index(column.split()[0]), column))
    rows = [phase for phase in (*PHASES, "ended", "too late") if any(phase == outcome.phase for outcome in outcomes)]
    lines = ["  ".join([f"{'':9}", *(f"{column:>14}" for column in columns)])]
    lines += ["  ".join([f"{row:9}", *(f"{counts[row, column]:14}" for column in columns)]) for row in rows]
    for what, values in (
        ("runner's end after the kill", [outcome.runner_ended_s for outcome in outcomes]),
        ("last process after that", [outcome.processes_gone_s for outcome in outcomes]),
        (
            "namespace released after that",
            [o.namespace_released_s for o in outcomes if o.namespace_released_s is not None],
        ),
    ):
        if values:
            middle, most = statistics.median(values), max(values)
            lines.append(f"{what}: {len(values)} times, median {middle * 1000:.0f} ms, longest {most * 1000:.0f} ms")
    return "\n".join(lines)


def _column(outcome: Outcome) -> str:
    return f"runner {outcome.signal.removeprefix('SIG')}" if outcome.part == "runner" else outcome.part


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill parts of experiments and prove that nothing stays.")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()

    def progress(number: int, outcome: Outcome) -> None:
        if (number + 1) % 20 == 0:
            print(f"{number + 1}/{options.rounds} after {time.monotonic() - started:.0f} s", file=sys.stderr)

    try:
        outcomes = soak(options.rounds, options.seed, progress)
    except ViolationError as violation:
        print(f"VIOLATION\n{violation}")
        return 1
    print(table(outcomes))
    print(f"{len(outcomes)} rounds, seed {options.seed}, {time.monotonic() - started:.0f} s: nothing stayed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
