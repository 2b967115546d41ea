"""The program that is sent to devices: what it may lean on there."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from testbed.fabric.rig.warden import program

OLDEST = (3, 9)


def test_it_is_the_standard_library_of_an_old_python_and_nothing_else() -> None:
    tree = ast.parse(Path(program.__file__).read_text(encoding="utf-8"), feature_version=OLDEST)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
