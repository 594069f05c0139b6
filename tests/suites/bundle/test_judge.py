"""A port that shares no code with the project is judged right, each planted fault is placed, and every way to dump
badly has its sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from command import strict
from made_bundles import save, save_raw, save_tensors
from numpy_port import FAULTS
from quick_runs import figures

from suites.__main__ import main
from suites.base.records import read_lines

C, D = "unet.encoder.layers.0.conv.0.conv.0", "unet.encoder.layers.0.conv.0.conv.1"
POOL = "unet.encoder.layers.0.pool"
RIGHT = "No stage at fault: 33 of the 438 values were dumped and lie within what rounding explains."


def images(arrays, change):
    return {name: change(array) if array.ndim == 4 else array for name, array in arrays.items()}


# ---------------------------------------------------------------------- the port
def test_the_port_is_right(good, tmp_path, judged):
    code, told = judged(save(good, tmp_path / "dump"))
    assert (code, told.strip().splitlines()[0]) == (0, RIGHT)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_placed(fault, port, tmp_path, judged):
    code, told = judged(save(port(fault=fault), tmp_path / "dump"))
    assert code == 1
    assert f"First stage at fault: {FAULTS[fault]}: " in told
    assert "on probe 'clip'" in told


def test_both_probes(port, tmp_path, judged):
    save(port(), tmp_path / "dump" / "clip")
    save(port("short"), tmp_path / "dump" / "short")
    assert judged(tmp_path / "dump")[0] == 0
    save({"mel": port("short")["mel"] * 1.01}, tmp_path / "dump" / "short")
    shutil.rmtree(tmp_path / "judged")
    code, told = judged(tmp_path / "dump")
    assert code == 1
    assert "on probe 'short'" in told


def test_another_default_probe(port, tmp_path, judged):
    save(port("short"), tmp_path / "dump")
    code, told = judged(tmp_path / "dump", "--probe", "shrt")
    assert code == 2
    assert "no probe 'shrt'; did you mean 'short'" in told
    assert judged(tmp_path / "dump", "--probe", "short")[0] == 0


def test_the_report_is_that_of_a_trace(good, tmp_path, judged):
    save({**good, D: good[D] * np.float32(1.01)}, tmp_path / "dump")
    assert judged(save({D: good[D]}, tmp_path / "dump" / "local").parent)[0] == 1
    folder = tmp_path / "judged"
    for line in read_lines(folder / "records.jsonl"):
        strict().validate(line)
    for name in ("report.md", "report.html", "stages.csv", "config.yaml", "environment.json"):
        assert (folder / name).stat().st_size > 0
    report = (folder / "report.md").read_text()
    assert "**Failed**" in report
    assert "python -m suites judge" in report
    before = (folder / "report.html").read_bytes()
    with figures():
        assert main(["report", str(folder)]) == 1
    assert (folder / "report.html").read_bytes() == before


def test_the_figure_is_drawn(good, bundle, tmp_path):
    save({**good, POOL: good[POOL] * 2}, tmp_path / "dump")
    assert main(["judge", str(bundle), str(tmp_path / "dump"), "--out", str(tmp_path / "out"), "-q"]) == 1
    assert (tmp_path / "out" / "plots" / "stages.png").stat().st_size > 1000


# ---------------------------------------------------------------------- layouts and types, which are no faults
SHAPED = {
    "channels last": (
        lambda a: images(a, lambda x: x.transpose(0, 2, 3, 1)),
        "channels last: the values are right after a transpose to batch, channel, row, column",
    ),
    "time first": (lambda a: {**a, "mel": a["mel"].T}, "mel is dumped time first"),
    "squeezed": (lambda a: {n: x.squeeze() for n, x in a.items()}, "with fewer axes of length 1"),
    "more axes": (lambda a: {n: x[None, ..., None] for n, x in a.items()}, "with more axes of length 1"),
    "another order": (
        lambda a: {**a, POOL: a[POOL].transpose(3, 0, 1, 2)},
        "in the order column, channel, row: the values are right",
    ),
    "flat": (lambda a: {n: x.ravel() for n, x in a.items()}, "in another shape"),
    "flat, channels last": (
        lambda a: images(a, lambda x: x.transpose(0, 2, 3, 1).ravel()),
        "in one piece, channels last",
    ),
    "big-endian": (lambda a: {n: x.astype(">f4") for n, x in a.items()}, "stored big-endian, and was read as such"),
    "float16": (lambda a: {n: x.astype("f2") for n, x in a.items()}, "stored as float16: judged no finer"),
    "float64": (lambda a: {n: x.astype("f8") for n, x in a.items()}, "stored as float64, and was compared as such"),
    "bfloat16 as integers": (
        lambda a: {**a, C: ((a[C].view("<u4") + 0x8000) >> 16).astype("<u2")},
        "holds bfloat16 values; they are right",
    ),
    "renamed": (
        lambda a: {("first" if n == C else n): x for n, x in a.items()},
        f"first is no stage of this bundle; it holds the value of {C}",
    ),
}


@pytest.mark.parametrize("kind", SHAPED)
def test_a_layout_or_a_type_is_named_and_no_fault(kind, good, tmp_path, judged):
    change, sentence = SHAPED[kind]
    code, told = judged(save(change(good), tmp_path / "dump"))
    assert code == 0, told
    assert sentence in told
    assert RIGHT in told


def test_values_of_another_layout_are_judged_in_the_references(good, tmp_path, judged):
    wrong = {**good, D: good[D] * np.float32(1.01)}
    code, told = judged(save(images(wrong, lambda x: x.transpose(0, 2, 3, 1)), tmp_path / "dump"))
    assert code == 1
    assert f"{D} is dumped channels last: judged after a transpose to batch, channel, row, column" in told
    assert f"First stage at fault: {D}: a constant factor of 1.01" in told


def test_files_of_every_kind(good, tmp_path, judged):
    save_raw({"mel": good["mel"]}, tmp_path / "dump")
    (tmp_path / "dump" / f"{C}.f32").write_bytes(good[C].astype("<f4").tobytes())
    (tmp_path / "dump" / "shapes.json").write_text(json.dumps({C: list(good[C].shape)}))
    save_tensors({D: good[D]}, tmp_path / "dump" / "clip.safetensors")
    np.savez(tmp_path / "dump" / "more.npz", **{POOL: good[POOL]})
    (tmp_path / "dump" / "notes.txt").write_text("mine")
    code, told = judged(tmp_path / "dump")
    assert code == 0
    assert "4 of the 438 values" in told


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [("<f4", ""), (">f4", "holds big-endian values"), ("<f2", "stored as float16"), ("<f8", "stored as float64")],
)
def test_raw_files(kind, sentence, good, tmp_path, judged):
    code, told = judged(save_raw(good, tmp_path / "dump", kind))
    assert code == 0, told
    assert sentence in told


def test_bfloat16_of_other_frameworks(good, tmp_path, judged):
    code, told = judged(save_tensors(good, tmp_path / "dump.safetensors", "BF16"))
    assert code == 0, told
    assert "stored as bfloat16: judged no finer" in told


def test_raw_files_without_a_shape(good, tmp_path, judged):
    save_raw(good, tmp_path / "dump")
    for path in (tmp_path / "dump").glob("*.shape"):
        path.unlink()
    assert judged(tmp_path / "dump")[0] == 0


# ---------------------------------------------------------------------- faults of values
def with_nan(array):
    array = array.copy()
    array[0, 1, 3, 4] = np.nan
    return array


FAULTY = {
    "one frame short": (lambda a: {**a, "mel": a["mel"][:, :-1]}, "mel: 1 frame shorter at the end; the rest agrees"),
    "one frame long": (lambda a: {**a, "mel": np.pad(a["mel"], ((0, 0), (1, 0)))}, "mel: 1 frame longer at the start"),
    "short and time first": (lambda a: {**a, "mel": a["mel"][:, :-1].T}, "mel: 1 frame shorter at the end"),
    "swapped": (
        lambda a: {**a, C: a[D], D: a[C]},
        f"It holds the value of {D}, and {D} holds that of {C}: they are swapped",
    ),
    "repeated": (lambda a: {**a, D: a[C]}, f"at fault: {D}: .*It holds the value of {C}"),
    "NaN": (lambda a: {**a, C: with_nan(a[C])}, f"{C}: 1 NaN in the result, first at channel 1, row 3, column 4"),
    "all NaN": (lambda a: {**a, C: a[C] * np.nan}, f"{C}: 32768 NaN in the result"),
    "infinite": (lambda a: {**a, C: a[C] * np.float32(np.inf)}, f"{C}: .*infinite in the result"),
    "integers": (
        lambda a: {**a, C: np.rint(a[C]).astype("i4")},
        f"{C} holds whole numbers .int32.; the reference's are float32",
    ),
    "a factor": (lambda a: {**a, C: a[C] * np.float32(1.1)}, f"{C}: a constant factor of 1.1"),
    "zeros": (lambda a: {**a, C: a[C] * 0}, f"{C}: zero everywhere"),
    "another input": (
        lambda a: {n: x * np.float32(1.5) for n, x in a.items()},
        "Nothing that was dumped is right: did the port run on this bundle's inputs",
    ),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_a_fault_has_its_sentence(kind, good, tmp_path, judged):
    import re

    change, sentence = FAULTY[kind]
    code, told = judged(save(change(good), tmp_path / "dump"))
    assert code == 1, told
    assert re.search(sentence, told), told


def test_the_values_of_another_probe(port, tmp_path, judged):
    code, told = judged(save(port("short"), tmp_path / "dump"))
    assert code == 1
    assert "It holds the value of probe 'short'." in told


# ---------------------------------------------------------------------- what is missing, and local values
def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


def from_stage(arrays, first):
    """Wrong from a stage on."""
    start = list(arrays).index(first)
    return {n: a * np.float32(1.2 if i >= start else 1) for i, (n, a) in enumerate(arrays.items())}


def test_a_missing_stage_narrows_the_answer_to_an_interval(good, tmp_path, judged):
    code, told = judged(save(without(from_stage(good, C), C), tmp_path / "dump"))
    assert code == 1
    assert f"lies between unet.encoder.bn (right) and {D} (wrong: " in told
    assert f"{C} was not dumped." in told


def test_a_local_value_leaves_one_of_two(good, known, tmp_path, judged):
    save(without(from_stage(good, C), C), tmp_path / "dump")
    code, told = judged(save({D: known[D]}, tmp_path / "dump" / "local").parent)
    assert code == 1
    assert f"First stage at fault: {C}, which was not dumped: it lies between unet.encoder.bn (right)" in told


def test_a_local_fault_is_placed_where_own_values_are_right(good, known, tmp_path, judged):
    save(good, tmp_path / "dump")
    code, told = judged(save({D: known[D] * np.float32(1.001)}, tmp_path / "dump" / "local").parent)
    assert code == 1
    assert f"First stage at fault: {D}: a constant factor of 1.001" in told
    assert "local error" in told


def test_what_is_right_by_itself_and_wrong_on_own_values_is_told(good, known, tmp_path, judged):
    save(from_stage(good, D), tmp_path / "dump")
    code, told = judged(save({D: known[D]}, tmp_path / "dump" / "local").parent)
    assert code == 1
    assert "something passes from stage to stage beside the values that are compared" in told


def test_groups_stand_for_their_last_part(good, known, tmp_path, judged):
    ends = {f"unet.encoder.layers.0.conv.{i}": good[f"unet.encoder.layers.0.conv.{i}.add"] for i in range(4)}
    assert judged(save({"mel": good["mel"], **ends}, tmp_path / "dump"))[0] == 0
    shutil.rmtree(tmp_path / "judged")
    wrong = {n: a * np.float32(1.5 if i > 1 else 1) for i, (n, a) in enumerate(ends.items())}
    code, told = judged(save({"mel": good["mel"], **wrong}, tmp_path / "dump"))
    assert code == 1
    assert "First stage at fault: unet.encoder.layers.0.conv.2 (its 7 stages inside were not dumped)" in told
    shutil.rmtree(tmp_path / "judged")
    code, told = judged(save({"unet.encoder.layers.0": known[POOL]}, tmp_path / "group" / "local").parent)
    assert code == 2
    assert "has no local limit; dump the stages inside it" in told


def test_a_decision_that_falls_otherwise_is_not_judged(known, tmp_path, judged):
    flipped = {name: known[name].copy() for name in ("cents", "f0")}
    flipped["cents"][7] += 1200
    flipped["f0"][7] *= 2
    code, told = judged(save(flipped, tmp_path / "dump"))
    assert code == 2
    assert "cents was not judged: some of its decisions fell otherwise" in told
    shutil.rmtree(tmp_path / "judged")
    code, told = judged(save({**flipped, "cents": known["cents"] * 1.5}, tmp_path / "dump"))
    assert code == 1
    assert "lies between the beginning and cents (wrong: a constant factor of 1.5" in told
    shutil.rmtree(tmp_path / "judged")
    code, told = judged(save({"cents": flipped["cents"]}, tmp_path / "other" / "local").parent)
    assert code == 1
    assert "local error" in told
