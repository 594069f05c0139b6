"""One tiny bundle for the tests of this folder, what the port in NumPy makes of it, and how that is judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy_port
import pytest
from made_bundles import shared_bundle
from quick_runs import figures

from suites.__main__ import main


@pytest.fixture(scope="session")
def bundle(shared_folder: Path) -> Path:
    return shared_bundle(shared_folder)


@pytest.fixture(scope="session")
def port(bundle: Path) -> Callable[..., numpy_port.Arrays]:
    """What the port makes of a probe, with a fault or without."""
    weights = numpy_port.read(bundle / "weights" / "rmvpe.safetensors")

    def run(probe: str = "clip", fault: str = "") -> numpy_port.Arrays:
        audio = numpy_port.read(bundle / probe / "inputs.safetensors")["audio"]
        return numpy_port.Port(weights, fault).run(audio)

    return run


@pytest.fixture(scope="session")
def good(port: Callable[..., numpy_port.Arrays]) -> numpy_port.Arrays:
    return port()


@pytest.fixture(scope="session")
def known(bundle: Path) -> numpy_port.Arrays:
    """The reference's values on the first probe."""
    return numpy_port.read(bundle / "clip" / "stages.safetensors")


@pytest.fixture
def judged(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A judgement's exit code and its sentences: notes, verdict and error."""

    def judge(dump: Path, *words: str) -> tuple[int, str]:
        capsys.readouterr()
        with figures():
            code = main(["judge", str(bundle), str(dump), "--out", str(tmp_path / "judged"), *words])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        assert "fault of the program" not in shown.err
        assert "warning" not in shown.err
        lines = shown.out.splitlines()
        start = next((i for i, line in enumerate(lines) if line.startswith("F0 decoding")), -1)
        return code, "\n".join([*lines[start + 1 :], shown.err])

    return judge
