"""What a fabric is: the lab file, its names and counts. Pure; reading the file is its only I/O."""

from testbed.lab.figures import FIGURES, Limit
from testbed.lab.loader import shipped_labs
from testbed.lab.model import Lab, lab_schema
from testbed.lab.problems import LabFileError
from testbed.lab.roles import Ready, Result, Role, Roles, Stop
from testbed.lab.shape import Link, Port, Shape, Tier
from testbed.lab.topology import Topology

__all__ = [
    "FIGURES",
    "Lab",
    "LabFileError",
    "Limit",
    "Link",
    "Port",
    "Ready",
    "Result",
    "Role",
    "Roles",
    "Shape",
    "Stop",
    "Tier",
    "Topology",
    "lab_schema",
    "shipped_labs",
]
