"""``python -m testbed.traffic.perftest write_bw …``: the programs where they are not installed as commands."""

from __future__ import annotations

import sys

from testbed.errors import nearest
from testbed.traffic.perftest.options import Tool
from testbed.traffic.perftest.programs import write_bw, write_lat

_PROGRAMS = {str(Tool.WRITE_BW): write_bw, str(Tool.WRITE_LAT): write_lat}

if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in _PROGRAMS:
        close = nearest(name, _PROGRAMS)
        sys.exit(f"give {' or '.join(_PROGRAMS)} first" + (f"; did you mean {close!r}?" if close else ""))
    del sys.argv[1]
    _PROGRAMS[name]()
