"""``python -m tests.fuzz --target NAME --seconds N``: hostile packets, steered by coverage; the corpus is kept.

Targets: ``nic``, two NICs with a transfer under way; ``voice``, a relay, a transceiver's socket and offers. Needs the
``fuzz`` extra. What fails is written to ``tests/fuzz/crashes``; ``--replay FILE`` plays it again. What is new in
coverage is merged into the target's corpus, which the unit tests play without a fuzzer.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.corpus import FOLDER, MOST_BYTES, MOST_FILES, corpus, entries

_CRASHES = FOLDER / "crashes"
#: Target → the package whose coverage steers.
_TARGETS = {"nic": "testbed.mrc", "voice": "testbed.voice"}
_LONGEST = 320
#: Courses at random to begin with.
_SEEDS = 40
#: A course takes some 50 ms, and several times that on a busy machine.
_TIMEOUT_S = 30


def main() -> int:
    """Fuzz, then keep what was new."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=_TARGETS, default="nic", help="what is attacked (default: nic)")
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: 60)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play one course, with what it fails by")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay:
        scene = _target(options.target)(options.replay.read_bytes())
        print(f"nothing failed; packets by what became of them: {scene.kinds}")
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("The fuzzer is not installed: pip install 'mrc-testbed[fuzz]' (Linux, Python 3.11 to 3.13)")
        return 2
    if options.child:
        _fuzz(options.target, options.child)
        return 0
    return _run(options.target, options.seconds)


def _target(name: str) -> Any:
    return importlib.import_module(f"tests.fuzz.{name}_target").one_input


def _run(target: str, seconds: int) -> int:
    _CRASHES.mkdir(exist_ok=True)
    kept_in = corpus(target)
    kept_in.mkdir(exist_ok=True)
    before = len(entries(target))
    with tempfile.TemporaryDirectory() as scratch:
        found, merged = Path(scratch, "found"), Path(scratch, "merged")
        found.mkdir()
        merged.mkdir()
        random = Random(0)
        for number in range(_SEEDS):
            (found / f"seed{number}").write_bytes(random.randbytes(random.randrange(8, _LONGEST)))
        # The fuzzer itself grows by some 100 kB with each course; the NIC does not, which a test holds.
        common = [
            f"-max_len={_LONGEST}",
            f"-timeout={_TIMEOUT_S}",
            "-rss_limit_mb=4096",
            f"-artifact_prefix={_CRASHES}/",
        ]
        code = _child(
            target,
            [*common, f"-max_total_time={seconds}", "-len_control=0", "-print_final_stats=1", str(found), str(kept_in)],
        )
        # By edges alone, and as few courses as cover them: how often one was taken is not worth anybody's time.
        kept = _child(target, [*common, "-set_cover_merge=1", "-use_counters=0", str(merged), str(kept_in), str(found)])
        if kept == 0:
            _keep(target, merged)
    print(f"corpus: {before} courses before, {len(entries(target))} now", f"; failures in {_CRASHES}" if code else "")
    return 1 if code or kept else 0


def _child(target: str, arguments: list[str]) -> int:
    command = [sys.executable, "-m", "tests.fuzz", "--target", target, "--child", *arguments]
    return subprocess.run(command, check=False).returncode


def _keep(target: str, merged: Path) -> None:
    """The merged courses become the corpus, the shortest first, as many as may be."""
    for path in entries(target):
        path.unlink()
    size = 0
    for path in sorted(merged.iterdir(), key=lambda path: path.stat().st_size)[:MOST_FILES]:
        size += path.stat().st_size
        if size > MOST_BYTES:
            break
        shutil.copyfile(path, corpus(target) / path.name[:16])


def _fuzz(name: str, arguments: list[str]) -> None:
    import atheris

    warnings.simplefilter("error")
    with atheris.instrument_imports(include=[_TARGETS[name]]):
        one_input = _target(name)

    def target(data: bytes) -> None:
        one_input(data)

    # Merging starts this again, as a line for a shell that begins with the first argument.
    again = f"{shlex.quote(sys.executable)} -m tests.fuzz --target {name} --child"
    atheris.Setup([again, *arguments], target)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
