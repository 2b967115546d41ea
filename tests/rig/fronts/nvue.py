"""Cumulus Linux's nv over a namespace: link state, pending and applied configuration.

Source: NVIDIA's Cumulus Linux user guide, NVUE CLI (`nv config diff|apply|detach`) and Interface Configuration (`nv set
interface swp1 link state down`). The rest of the switch is Linux, and so is the namespace.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import kernel  # type: ignore[import-not-found]

STATE = Path("/run/front.json")


def main(program: str, *words: str) -> None:
    state = json.loads(STATE.read_text())
    pending = state.setdefault("pending", {})
    if words[:2] == ("set", "interface") and words[3:5] == ("link", "state") and words[5] in ("up", "down"):
        pending[words[2]] = words[5]
    elif words == ("config", "diff"):
        for name, how in pending.items():
            print(f"- set:\n    interface:\n      {name}:\n        link:\n          state:\n            {how}: {{}}")
    elif words == ("config", "apply", "-y"):
        missing = [name for name in pending if name not in kernel.links()]
        if missing:
            sys.exit(f"Invalid config [rev_id: 2]\n  interface {missing[0]} does not exist")
        for name, how in pending.items():
            kernel.ip("link", "set", "dev", name, how)
        pending.clear()
        print("applied [rev_id: 2]")
    elif words == ("config", "detach"):
        pending.clear()
    else:
        sys.exit(f"Error: {program} {' '.join(words)} is not a valid command")
    STATE.write_text(json.dumps(state))


if __name__ == "__main__":
    main(*sys.argv[1:])
