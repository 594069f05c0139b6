"""The training tool, at its tiniest."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from suites.inputs import weights
from tools.train_rmvpe import DONE, ERROR, INTERRUPTED, TIME_UP, Loop, main
from tools.training.scores import Frames, best_threshold, difference, fill_card, score
from tools.training.step import Recipe, State, Stepper, load_state, loss_of, make_logits

SMALL = ["--width", "1", "--hidden", "4", "--batch", "2", "--frames", "32", "--check-batches", "1", "--lr", "0.001"]
TINY = Recipe(width=1, hidden=4, batch=2, frames=32, precision="fp32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    assert main(["--out", str(out), "--steps", "3", "--precision", "fp32", "--check-every", "2", *SMALL]) == DONE
    return out


def entries(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    recipe = Recipe(width=1, hidden=4, batch=2, frames=32, precision="bf16")
    whole, half = State(recipe, "cpu"), State(recipe, "cpu")
    whole.steps = half.steps = 2
    stepper = Stepper(whole)
    for _ in range(2):
        stepper()
    stepper = Stepper(half)
    stepper()
    half.save(tmp_path / "state.pt")
    torch.rand(5)  # whatever else draws must not matter
    again = load_state(tmp_path / "state.pt", "cpu", recipe)
    Stepper(again)()
    assert again.step == whole.step == 2
    for kind in ("network", "average"):
        values, resumed = getattr(whole, kind).state_dict(), getattr(again, kind).state_dict()
        for name, value in values.items():
            assert torch.equal(value, resumed[name]), name
    assert torch.equal(whole.loss_sum, again.loss_sum)


def test_learning_rate_ends_at_zero() -> None:
    state = State(TINY, "cpu")
    state.steps = 100
    rates = []
    for state.step in range(100):
        rates.append(state.learning_rate())
    assert max(rates) == TINY.lr
    assert rates[0] == pytest.approx(TINY.lr / 10)
    assert rates[-1] < 1e-3 * TINY.lr
    state.steps = 0
    state.step = 10
    assert state.learning_rate() == pytest.approx(TINY.lr * 11 / 500)


def test_logits_are_the_public_models() -> None:
    state = State(TINY, "cpu")
    state.network.eval()
    mel = torch.randn(2, 128, 32)
    with torch.no_grad():
        carry = {"x": mel.transpose(1, 2).unsqueeze(1)}
        for stage in state.network.stages():
            stage.apply(carry)
        assert torch.equal(torch.sigmoid(make_logits(state.network, "fp32")(mel)), carry["x"])


def test_frames_of_no_weight_play_no_part() -> None:
    logits, target = torch.randn(1, 4, 360), torch.zeros(1, 4, 360)
    weight = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    other = logits.clone()
    other[0, 1] += 5
    assert loss_of(logits, target, weight) == loss_of(other, target, weight)
    assert loss_of(logits, target, torch.ones(1, 4)) != loss_of(other, target, torch.ones(1, 4))


@pytest.mark.parametrize("package", ["reference_torch", "rvc_mlx"])
def test_checkpoint_loads_on_both_sides(trained: Path, package: str) -> None:
    model = importlib.import_module(package).RMVPE.from_checkpoint(trained / "rmvpe-small.safetensors")
    f0 = model.f0(np.sin(np.arange(16000) / 16000 * 2 * np.pi * 220).astype(np.float32))
    assert f0.shape == (101,)
    assert np.isfinite(f0).all()


def test_log_tells_steps_checks_and_the_calibration(trained: Path) -> None:
    lines = entries(trained)
    assert [line["event"] for line in lines] == ["start", "check", "export"]
    assert lines[1]["step"] == 2
    result = lines[-1]
    before, after = result["calibration_before"], result["calibration_after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    for name, scores in before.items():  # the shift moves the threshold and leaves the decisions
        assert after[name]["recall"] == pytest.approx(scores["recall"], abs=0.02)
        assert after[name]["overall"] == pytest.approx(scores["overall"], abs=0.02)


def test_a_finished_run_is_not_trained_further_and_exports_the_same(trained: Path) -> None:
    content = (trained / "rmvpe-small.safetensors").read_bytes()
    assert main(["--out", str(trained), "--export", *SMALL]) == DONE
    assert (trained / "rmvpe-small.safetensors").read_bytes() == content


def test_time_up_and_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is written each time."""
    words, written = ["--out", str(tmp_path), "--steps", "1", "--precision", "fp32", *SMALL], []
    monkeypatch.setattr("tools.train_rmvpe.write_checkpoint", lambda state, *_: written.append(state.step))
    assert main([*words, "--minutes", "0.000001"]) == TIME_UP
    assert main(words) == DONE
    assert load_state(tmp_path / "state.pt", "cpu").step == 1
    assert written == [0, 1]


def test_an_interrupt_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    monkeypatch.setattr(Loop, "after_step", lambda self: signal.raise_signal(signal.SIGINT))
    assert main(["--out", str(tmp_path), "--steps", "5", "--precision", "fp32", *SMALL]) == INTERRUPTED
    assert load_state(tmp_path / "state.pt", "cpu").step == 1


def test_steps_are_counted_from_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tools.train_rmvpe as tool

    monkeypatch.setattr(tool, "MEASURED_STEPS", 2)
    monkeypatch.setattr(tool, "write_checkpoint", lambda *_: None)
    monkeypatch.setattr(Loop, "elapsed", lambda self: 2.0 * self.state.step)
    words = ["--out", str(tmp_path), "--total-minutes", "0.2", "--precision", "fp32", *SMALL]
    assert main(words) == DONE
    # 12 s, 4 of them spent, 2 s a step and a little in reserve
    assert [line["steps"] for line in entries(tmp_path) if line["event"] == "plan"] == [2 + 3]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--out"),
        (["--out", "x"], "--steps"),
        (["--out", "x", "--steps", "1", "--frames", "33"], "multiple of 32"),
        (["--out", "x", "--steps", "1", "--batch", "1"], "at least 2"),
        (["--out", "x", "--steps", "1", "--device", "abacus"], "unknown device"),
        (["--out", "x", "--export"], "no such file"),
        (["--curves", "none.jsonl", "x.png"], "no training log"),
        (["--score", "none.safetensors"], "none.safetensors"),
        (["--card", "none.md"], "--score"),
    ],
)
def test_errors_are_one_line(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == ERROR
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_another_recipe_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(trained), "--steps", "3", "--precision", "bf16", *SMALL]) == ERROR
    assert "precision fp32 (now bf16)" in capsys.readouterr().err


def test_card_is_filled_with_the_scores(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card, file = tmp_path / "README.md", str(trained / "rmvpe-small.safetensors")
    card.write_text(Path("assets/README.md").read_text())
    assert main(["--score", file, "--card", str(card), *SMALL]) == DONE
    told, text = capsys.readouterr().out.strip(), card.read_text()
    assert told in text
    assert text.count("| clean |") == 1
    assert "steps 3" in text
    fill_card(told, card)  # the second time replaces
    assert card.read_text() == text
    monkeypatch.setattr("tools.train_rmvpe.versus", lambda *_: pytest.fail("it began"))
    card.write_text("no marks")
    assert main(["--score", file, "--card", str(card), *SMALL]) == ERROR
    assert card.read_text() == "no marks"


def test_scores_of_two_files_are_set_beside_each_other(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped network finds what one of three steps does not; against itself nothing differs."""
    shipped, other = str(weights.shipped(weights.cache_folder(None)).path), str(trained / "rmvpe-small.safetensors")
    words = ["--batch", "2", "--frames", "32", "--check-batches", "2"]
    assert main(["--score", other, shipped, other, *words]) == DONE
    tables = capsys.readouterr().out.split("`")
    clean = [line for line in "".join(tables).splitlines() if line.startswith("| clean |")]
    assert len(clean) == 5  # three of scores, two of differences
    assert clean[0] == clean[3]
    assert float(clean[2].split("|")[2].split("±")[0]) > 20
    assert clean[4].split("|")[2].strip() == "+0.00 ± 0.00"


def test_curves_are_drawn(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    scores = {"clean": {"rpa": 0.5}}
    lines = [{"event": "train", "step": 100, "loss": 3.0, "lr": 0.1}, {"event": "check", "step": 100, "scores": scores}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["--curves", str(log), str(tmp_path / "x.png")]) == DONE
    assert (tmp_path / "x.png").stat().st_size > 1000


def frames(estimate: np.ndarray, peak: np.ndarray) -> Frames:
    return Frames(np.full(100, 5000.0), np.arange(100) < 80, estimate, peak)


def test_scores_know_their_faults() -> None:
    right, sure = np.full(100, 5010.0), np.where(np.arange(100) < 80, 0.9, 0.01)
    assert score(frames(right, sure)) == pytest.approx(
        {"rpa": 1, "rca": 1, "recall": 1, "false_alarm": 0, "overall": 1, "cents": 10}
    )
    octave = score(frames(right + 1200, sure))
    assert (octave["rpa"], octave["rca"], octave["overall"]) == (0, 1, 0.2)
    assert score(frames(right + 60, sure))["rpa"] == 0
    assert score(frames(right, np.where(sure > 0.5, 0.01, 0.9)))["overall"] == 0


@pytest.mark.parametrize("about", [None, "not json", "[1]", '{"training": 3}'])
def test_a_file_of_somebody_else_is_scored_too(about: str | None, tmp_path: Path) -> None:
    """What it says of itself is left out."""
    from tools.training.scores import _facts

    path = tmp_path / "x.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, path, None if about is None else {"about": about})
    assert _facts(path) == f"{path.stat().st_size} bytes"


def test_a_difference_and_its_error() -> None:
    """Two batches, in one of which the other model misses half of what the first one finds."""
    right, sure = np.full(100, 5010.0), np.where(np.arange(100) < 80, 0.9, 0.01)
    good, half = frames(right, sure), frames(right, np.where(np.arange(100) < 40, 0.9, 0.01))
    found = difference([good, good], [good, half], "rpa")
    assert found.value == pytest.approx(-0.25)
    assert found.error == pytest.approx(0.25)  # of the mean of 0 and -0.5
    assert difference([good, good], [good, good], "rpa") == (0.0, 0.0)
    assert difference([good], [half], "recall") == (pytest.approx(-0.5), None)


def test_best_threshold_parts_the_voiced_from_the_rest() -> None:
    peak = np.where(np.arange(100) < 80, 0.4, 0.2)
    threshold = best_threshold({"one": frames(np.full(100, 5000.0), peak)})
    assert 0.2 <= threshold < 0.4
