"""Writes version and commit into what is built; see ``suites/base/provenance.py``."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):  # type: ignore[misc]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        from suites.base import provenance

        if version == "editable" or provenance.BUILT.is_file():  # a clone has git; an archive of sources has the file
            return
        self.made = tempfile.TemporaryDirectory()
        path = Path(self.made.name) / provenance.BUILT.name
        path.write_text(json.dumps(provenance.package()) + "\n")
        build_data["force_include"][str(path)] = f"suites/data/{path.name}"

    def finalize(self, *_: Any) -> None:
        if hasattr(self, "made"):
            self.made.cleanup()
