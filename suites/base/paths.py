"""Where the harness finds its own files: in a clone, or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent
DATA = PACKAGE / "data"
# next to the packages in a clone, inside the package in an installed wheel
CONF = next(p for p in (ROOT / "conf", PACKAGE / "conf") if p.is_dir())
