"""What the documents name must exist, and their commands must be ones that the programs understand."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest

import reference_torch
import rvc_mlx
from rvc_common.command import Side, parser
from rvc_common.pipeline import Pipeline
from suites.__main__ import OF_SUITES, parse
from suites.measure.config import check_sweep, compose_config

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
GUIDE = (ROOT / "docs" / "pytorch-to-mlx.md").read_text()


@pytest.mark.parametrize(("path", "name"), sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", GUIDE))))
def test_the_tests_that_guard_a_point_exist(path, name):
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_every_point_has_a_test():
    points = re.split(r"^- ", GUIDE, flags=re.MULTILINE)[1:]
    assert len(points) > 30
    for point in points:
        assert "`tests/" in point, point


def heading_names(text: str) -> set[str]:
    """As GitHub makes them from the headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target, anchor in re.findall(r"\]\(([^)#:]+)#?([^)]*)\)", text):
        path = (ROOT / page).parent / target
        assert path.exists(), target
        assert not anchor or anchor in heading_names(path.read_text()), f"{target}#{anchor}"


# ---------------------------------------------------------------------- commands
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PORTS = {one.__name__: parser(Side(one, "", ("cpu", "gpu"), None)) for one in (rvc_mlx, reference_torch)}


def commands(page: str) -> list[str]:
    """Every command of a page, in a block or in backticks."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    lines = [line for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.M | re.S) for line in block.splitlines()]
    lines += re.findall(r"(?<!`)`((?:python -m|pip install) [^`\n]+)`", text)
    return [" ".join(part.split()) for line in lines for part in line.split(" && ")]


@pytest.mark.parametrize("command", sorted({command for page in PAGES for command in commands(page)}))
def test_a_command_is_understood(command):
    """By the program's own parser, with every override composed; nothing is run. Words in capitals stand for others."""
    program, *words = shlex.split(command, comments=True) or [""]
    if program == "pip":
        files = [words[i + 1] for i, word in enumerate(words) if word in ("-r", "-c")]
        assert all((ROOT / name).is_file() for name in files), files
        assert {name for found in re.findall(r"\.\[(.+)\]", command) for name in found.split(",")} <= set(EXTRAS)
    elif program == "python":
        assert words[0] == "-m"
        module_is_understood(*words[1:])
    elif program in ("ruff", "mypy"):
        assert any(needed.startswith(f"{program}>=") for needed in EXTRAS["dev"])
    elif program.startswith("."):
        assert program == "." or (ROOT / program).is_file(), program
    else:
        assert program in ("", "export", "python3"), program


def module_is_understood(module: str, *words: str) -> None:
    if module == "suites":
        args = parse(list(words))
        overrides = getattr(args, "overrides", [])
        suite = getattr(args, "suite", getattr(args, "model", "all"))
        if getattr(args, "multirun", False):
            check_sweep(suite, overrides)
        elif args.command in OF_SUITES and suite != "all" and suite.islower() and "=" not in suite:
            compose_config(suite, overrides)
    elif module in PORTS:
        PORTS[module].parse_args(words if len(words) > 1 else ["convert", "IN", "OUT", "--voice=V", "--hubert=H"])
    elif module == "pytest":
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    else:
        assert importlib.util.find_spec(module) is not None, module


# ---------------------------------------------------------------------- figures
def test_what_is_quoted_from_a_report_is_in_it():
    quoted = re.findall(r"^> ?(.*)$", (ROOT / "docs/reading-a-report.md").read_text(), re.MULTILINE)
    lines = [" ".join(text.split()) for text in "\n".join(quoted).replace("\n  ", " ").split("\n") if text]
    assert len(lines) == 2
    published = (ROOT / "reports/benchmarks/linux-cpu/BENCHMARKS.md").read_text()
    assert all(line in published for line in lines), lines


class Silence:
    """A HuBERT and a voice without pitch that keep the lengths of the real ones and compute nothing."""

    version, profile, device, has_f0 = "v2", "applio", "cpu", False
    phone_channels, sample_rate, hop_samples = 1, 16000, 160

    def width(self, version: str, profile: str) -> int:
        return self.phone_channels

    def features(self, audio: np.ndarray, version: str, profile: str) -> np.ndarray:
        return np.zeros(((audio.size - 400) // 320 + 1, self.phone_channels), np.float32)

    def noise_sizes(self, frames: int) -> list[tuple[str, int]]:
        return []

    def infer(self, phone: np.ndarray, *_: object) -> np.ndarray:
        return np.zeros((1, phone.shape[1] * self.hop_samples), np.float32)


@pytest.mark.filterwarnings("ignore:the converted audio is silent")  # as the stand-in voice is
@pytest.mark.parametrize("seconds", [1, 30.5, 200])
def test_a_conversion_ends_as_early_as_the_limits_say(seconds):
    """docs/limits.md: 5 to 25 ms, and up to 10 ms for each cut."""
    pipeline = Pipeline(Silence(), None, Silence())
    reports: dict[str, np.ndarray] = {}
    recording = np.random.default_rng(0).standard_normal(int(16000 * seconds)).astype(np.float32)
    audio, rate = pipeline.convert(recording, 16000, watch=reports.__setitem__)
    early_ms, cuts = 1000 * (seconds - audio.size / rate), reports["cuts"].size - 1
    assert cuts == (5 if seconds == 200 else 0)
    assert 5 <= early_ms <= 25 + 10 * cuts


GLOSSARY = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)


def test_the_glossary_is_sorted_and_has_each_term_once():
    terms = [term for term, _ in GLOSSARY]
    assert len(terms) > 40
    assert terms == sorted(set(terms), key=str.lower)
    assert all(text.endswith(".") for _, text in GLOSSARY)


@functools.cache
def code() -> list[str]:
    files = [path for folder in ("suites", "rvc_mlx", "conf") for path in (ROOT / folder).rglob("*.*")]
    return [path.read_text() for path in files if path.suffix in (".py", ".yaml")]


@pytest.mark.parametrize("name", sorted({name for _, text in GLOSSARY for name in re.findall(r"`([^`]+)`", text)}))
def test_names_in_the_glossary_exist(name):
    """Paths in the checkout, everything else in the code or in the configuration."""
    if "/" in name:
        assert (ROOT / name).exists()
        return
    word = re.escape(name.rstrip("="))
    folders = {path.name for path in ROOT.iterdir()}
    assert name in folders or any(re.search(rf"(?<!\w){word}(?!\w)", text) for text in code()), name
