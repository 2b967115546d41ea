"""``python -m tests.soak``: kill parts of experiments at random moments, 200 times, and prove that nothing stays."""

import sys

from tests.soak.kill_soak import main

if __name__ == "__main__":
    sys.exit(main())
