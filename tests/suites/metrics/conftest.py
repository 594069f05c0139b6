"""Another table of floors in the place of the one that ships."""

from __future__ import annotations

import json
from typing import Any

import pytest

from suites.metrics import floors


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Puts another table in the place of the one that ships."""

    def use(content: Any) -> None:
        path = tmp_path / "floors.json"
        if content is not None:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setattr(floors, "TABLE", path)
        floors.stored.cache_clear()

    yield use
    floors.stored.cache_clear()
