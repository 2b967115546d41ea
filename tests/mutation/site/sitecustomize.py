"""Plants a defect in processes that tests start; see :mod:`tests.mutation.planting`. pytest has a plugin for itself."""

from __future__ import annotations

import os
import sys

_NAME = os.environ.get("TESTBED_TESTS_PLANTED_DEFECT", "")
if _NAME and not any("pytest" in word for word in sys.orig_argv):
    from tests.mutation.catalogue import DEFECTS

    DEFECTS[_NAME].plant()
