"""Runs `nsl.tools.pack_nbrs` from this checkout, without installation."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from nsl.tools.pack_nbrs import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
