"""The judge passes rounding and fails faults, whatever the floor."""

from __future__ import annotations

import numpy as np
import pytest

from suites.definitions import SUITES
from suites.measure.verdict import Judge
from suites.metrics.limits import FLOOR_FACTOR

LIMITS = {"mel_relative": 5e-6, "salience_max_abs": 5e-6, "f0_max_cents": 0.05, "voicing_mismatches": 0}


@pytest.fixture
def results():
    rng = np.random.default_rng(0)
    salience = rng.random((40, 360)).astype(np.float32) * 0.02
    salience[np.arange(30), rng.integers(20, 340, 30)] = 0.6
    f0 = np.where(np.arange(40) < 30, 220.0, 0.0)
    mel = rng.standard_normal((128, 40)).astype(np.float32)
    return {"mel": mel, "network": salience, "own_salience": salience, "decode": f0, "f0": f0}


def altered(results, name, change):
    return results | {name: change(results[name].copy())}


def judge_of(reference):
    return Judge(SUITES["rmvpe"], LIMITS, {"threshold": 0.03}, reference)


def judge(results, reference, component):
    return judge_of(reference)(component, results, False)


@pytest.mark.parametrize("component", ["mel", "network", "decode", "f0"])
def test_equal_results_pass(results, component):
    verdict = judge(results, results, component)
    assert (verdict["status"], verdict["reason"]) == ("passed", None)


def nan(x):
    x.flat[3] = np.nan
    return x


def unvoiced(x):
    x[5] = 0
    return x


FAULTS = {
    "mel NaN": ("mel", "mel", nan),
    "mel gain of 0.5 dB": ("mel", "mel", lambda x: x + np.float32(np.log(10) * 0.5 / 20)),
    "mel one frame late": ("mel", "mel", lambda x: np.roll(x, 1, axis=1)),
    "mel shorter": ("mel", "mel", lambda x: x[:, :-1]),
    "salience NaN": ("network", "network", nan),
    "salience 1e-5 off": ("network", "network", lambda x: x + np.float32(1e-5)),
    "last row zero": ("network", "network", lambda x: np.concatenate([x[:-1], x[-1:] * 0])),
    "batch axis kept": ("network", "network", lambda x: x[None]),
    "decoding 0.1 cent off": ("decode", "decode", lambda x: x * 2 ** (0.1 / 1200)),
    "decoding an octave off": ("decode", "decode", lambda x: x * 2),
    "decoding voicing": ("decode", "decode", unvoiced),
    "chain 0.1 cent off": ("f0", "f0", lambda x: x * 2 ** (0.1 / 1200)),
    "chain voicing": ("f0", "f0", unvoiced),
    "chain NaN": ("f0", "f0", nan),
    "chain salience": ("f0", "own_salience", lambda x: x + np.float32(1e-5)),
    "chain salience NaN": ("f0", "own_salience", nan),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_fail(results, fault):
    component, name, change = FAULTS[fault]
    verdict = judge(altered(results, name, change), results, component)
    assert verdict["status"] == "failed"
    assert verdict["reason"]


def test_the_floor_raises_a_limit_but_only_to_its_factor(results):
    moved = results["own_salience"] + np.float32(4e-6)
    reference = results | {
        "exact_mel": results["mel"],
        "exact_network": results["network"].astype(np.float64),
        "floor_network": results["network"],
        "moved_salience": moved,
    }
    reference |= {f"{name}_f0": results["f0"] for name in ("exact", "floor", "moved")}
    for error, status in ((1.0e-5, "passed"), (1.5e-5, "failed")):
        verdict = judge(altered(results, "own_salience", lambda x, e=error: x + np.float32(e)), reference, "f0")
        assert verdict["status"] == status
        check = verdict["parity"]["limits"]["salience_max_abs"]
        assert check["base"] == 5e-6
        assert check["limit"] == pytest.approx(FLOOR_FACTOR * check["floor"])


def test_undecided_frames_are_counted_not_judged(results):
    reference = {name: x.copy() for name, x in results.items()}
    reference["own_salience"][35, 7] = 0.03 + 1e-7
    reference["f0"][35] = 100.0
    ours = results | {"own_salience": reference["own_salience"] - np.float32(1e-6)}
    verdict = judge(ours, reference, "f0")
    assert verdict["status"] == "passed"
    assert verdict["parity"]["undecided_frames"] == 1
    assert verdict["parity"]["voicing_mismatches"] == 1


def test_a_failed_reference_is_not_comparable(results):
    assert judge_of(None)("mel", results, False)["status"] == "not_comparable"


def test_the_reference_itself_must_be_finite(results):
    broken = altered(results, "mel", nan)
    assert judge_of(broken)("mel", broken, True)["status"] == "failed"


def test_a_reference_far_from_float64_fails_and_excuses_nothing(results):
    broken = results["network"].copy()
    broken[3] += np.float32(0.3)
    reference = results | {"network": broken, "floor_network": broken, "exact_network": results["network"]}
    judge_all = judge_of(reference)
    itself = judge_all("network", reference, True)
    assert itself["status"] == "failed"
    assert itself["reason"] == "the reference is wrong here: salience_max_abs 0.3 against its own float64"
    zeros = judge_all("network", results | {"network": broken * 0}, False)
    assert zeros["status"] == "failed"


def test_what_a_wrong_reference_explains_is_not_the_backends_fault(results):
    """The backend is right, as float64 says, so it differs from the reference by the reference's own error."""
    broken = results["network"].copy()
    broken[3] += np.float32(0.3)
    reference = results | {"network": broken, "floor_network": broken, "exact_network": results["network"]}
    verdict = judge_of(reference)("network", results, False)
    assert verdict["status"] == "not_comparable"
    assert verdict["reason"] == "the reference is wrong here: salience_max_abs 0.3 against its own float64"
    worse = judge_of(reference)("network", results | {"network": results["network"] - np.float32(0.01)}, False)
    assert worse["status"] == "failed"
    assert worse["reason"].startswith("salience_max_abs 0.31 (limit")
