"""``python -m testbed.cli``: the same as ``testbed``."""

from testbed.cli import main

main(prog_name="testbed")
