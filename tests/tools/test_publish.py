"""What a published run keeps: every record, every array but the mel, and of the mel what its figure shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize

from reports.data.frame import load
from reports.figures import sound as plots_sound
from suites.base.records import read_lines, records_file
from tools.publish import as_drawn, publish

RUN = Path(__file__).parents[1] / "fixtures" / "run"


def colours(mel: np.ndarray) -> np.ndarray:
    """As the figure colours it, ``[bands, frames, 4]``."""
    shown = mel.astype(np.float32)
    low = max(shown.min(), shown.max() - plots_sound.MEL_RANGE)
    return colormaps["magma"].resampled(plots_sound.LEVELS)(Normalize(low, shown.max())(shown))


def test_a_published_run_reads_as_before(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(RUN, folder)
    (folder / "workers.log").write_text("x")
    (folder / "plots").mkdir(exist_ok=True)
    before = list(read_lines(records_file(folder)))
    contour = next((folder / "contours").glob("*.npz"))
    with np.load(contour) as stored:
        arrays = {name: stored[name] for name in stored.files}
    publish(folder)
    assert records_file(folder).name == "records.jsonl.xz"
    assert list(read_lines(records_file(folder))) == before
    found = load(folder).files.contours(contour.stem)
    assert set(found) == set(arrays)
    for name in set(arrays) - {"mel"}:
        assert found[name].tobytes() == arrays[name].tobytes()
    assert not (folder / "workers.log").exists()
    assert not (folder / "plots").exists()


def test_a_mel_is_coloured_as_before():
    mel = np.random.default_rng(1).normal(-4, 3, (16, 1200)).astype(np.float16)
    kept = as_drawn(mel)
    assert kept.shape == (16, 1000)
    assert len(np.unique(kept)) <= plots_sound.LEVELS + 2
    assert np.array_equal(colours(kept), colours(mel[:, :1000]))
    assert np.array_equal(as_drawn(kept), kept)


def test_a_mel_of_one_value_stays():
    mel = np.full((4, 3), -5.0, np.float16)
    assert (as_drawn(mel) == mel).all()
