"""One program for each of a device's ports, all in one command: a round trip a port would make slow devices slower."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from testbed.errors import InfrastructureError, UnsupportedError
from testbed_drivers.ssh import Connection

#: How shells tell that there is no such program.
NOT_FOUND: Final = 127
#: The mark is another each time, so that nothing a port's program prints is taken for the next port.
_LOOP: Final = """
m="$0"
for p; do
  printf '%s %s\\n' "$m" "$p"
  {{ {command}; }} 2>&1
  printf '\\n%s = %s\\n' "$m" "$?"
done
"""


class Said(NamedTuple):
    """What a program said of a port: its exit code, and stdout and stderr together."""

    returncode: int
    output: str

    @property
    def why(self) -> str:
        """Why it has nothing to say, for a person."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"exit code {self.returncode}"


def each_port(connection: Connection, command: str, ports: Iterable[str], *, root: bool = False) -> dict[str, Said]:
    """Port → what a command said of it.

    Args:
        command: shell words of ours, with ``"$p"`` for the port; never put together from data.
        ports: what the device calls them; they reach the shell as arguments.
        root: the command needs it.

    Raises UnsupportedError where the program is not installed, and what the connection raises.
    """
    wanted = list(ports)
    if not wanted:
        return {}
    mark = f"[{secrets.token_hex(8)}]"
    done = connection.read(["sh", "-c", _LOOP.format(command=command), mark, *wanted], root=root)
    said = _parted(done.stdout, mark, connection.device.node)
    program = command.split()[0]
    if all(each.returncode == NOT_FOUND for each in said.values()):
        raise UnsupportedError(f"{program} is not installed on it", where=connection.device.node)
    return said


def _parted(text: str, mark: str, node: str) -> dict[str, Said]:
    said: dict[str, Said] = {}
    port, lines = "", list[str]()
    for line in text.split("\n"):
        if line.startswith(f"{mark} = "):
            said[port] = Said(int(line.rpartition(" ")[2]), "\n".join(lines))
        elif line.startswith(f"{mark} "):
            port, lines = line.partition(" ")[2], []
        else:
            lines.append(line)
    if not said:
        raise InfrastructureError("its shell did not run a command for each port", where=node, found=repr(text[:200]))
    return said


def by_fabric_port(ports: Mapping[str, str], said: Mapping[str, Said]) -> dict[str, Said]:
    """The same by ports of the fabric; ``ports`` is the cable map."""
    return {port: said[name] for port, name in ports.items() if name in said}
