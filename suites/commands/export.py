"""``export onnx PART...``: parts of the reference as ONNX files, each checked against it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rvc_common.outputs import check_output

from ..base.errors import UserError, nearest
from ..base.outcome import FAILED, PASSED, Answer
from ..definitions.config import Config
from ..export.make import Mismatch, check_needs, export_to, exported, facts_of
from ..export.parts import PARTS
from ..inputs.checkpoints import read_checked
from ..inputs.weights import cache_folder, find_weights
from ..measure.config import compose_config

HELP = "parts of the reference as ONNX files, each checked against it"
EXAMPLES = (
    ("export onnx rmvpe hubert", "with synthetic weights, into the cache"),
    ("export onnx vocoder weights.voice=VOICE.pth profile=webui out=exported", "a voice's, into a folder"),
)
FORMATS = ("onnx",)
# the suite that has all models and their options
SUITE = "components"
OPTIONS = "out", "profile", "measure", "measure.model", "suite.voice", "suite.version", "paths.cache", "weights.seed"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("format", metavar="FORMAT", choices=FORMATS, help="onnx")
    parser.add_argument(
        "words",
        nargs="+",
        metavar="PART",
        help=f"{', '.join(PARTS)}; and name=value: weights.rmvpe, weights.hubert and weights.voice (default: "
        f"synthetic weights), {', '.join(OPTIONS[1:])}, and out=FOLDER (default: the cache, made once)",
    )


def run(args: argparse.Namespace) -> Answer:
    parts = list(dict.fromkeys(word for word in args.words if "=" not in word))
    overrides = [word for word in args.words if "=" in word]
    for part in parts:
        if part not in PARTS:
            raise UserError(f"unknown part {part!r}{nearest(part, PARTS)}")
    if not parts:
        raise UserError(f"which part? one or more of {', '.join(PARTS)}")
    config = compose_config(SUITE, overrides)
    models = {PARTS[part].model for part in parts}
    for word in overrides:
        _check_used(word.partition("=")[0], models)
    check_needs()
    targets = {part: None if config.out is None else Path(config.out) / f"{part}.onnx" for part in parts}
    checkpoints = {part: _checkpoint(config, PARTS[part].model) for part in parts}
    for part, target in targets.items():  # before the first of them is made
        if target is not None:
            check_output(target, inputs=(checkpoints[part],), makes_folder=True)
    lines, files, failed = [], {}, {}
    for part in parts:
        try:
            path = _exported(config, part, checkpoints[part], targets[part])
        except Mismatch as error:
            failed[part] = str(error)
            lines.append(f"{error}; no file was written")
            continue
        facts = facts_of(path)
        checks = json.loads(facts["checked"])
        worst = max(check["max_abs"] for check in checks)
        cases = {tuple(check["case"]) for check in checks}
        lines.append(f"{part}: {path}, max error {worst:.2g} in {len(cases)} cases of other lengths, within limits")
        files[part] = {"file": str(path), **facts, "checked": checks}
    lines.append(f"{len(files)} of {len(parts)} parts exported and checked")
    return Answer(FAILED if failed else PASSED, "\n".join(lines), {"files": files, "failed": failed})


def _check_used(name: str, models: set[str]) -> None:
    """An option without effect is a mistake."""
    weights = [f"weights.{model}" for model in sorted(models)]
    if name not in (*OPTIONS, *weights):
        raise UserError(f"{name}: nothing that is exported depends on it; known: {', '.join((*weights, *OPTIONS))}")


def _checkpoint(config: Config, model: str) -> Path:
    voice = getattr(config.suite, "voice", None)
    given = config.weights.given().get(model)
    if given is not None:  # all of them, before the first part is made
        read_checked(Path(given), model)
    folder = cache_folder(config.paths.cache)
    return find_weights(model, given, config.weights.seed, config.measure.model, voice, folder).path


def _exported(config: Config, part: str, checkpoint: Path, target: Path | None) -> Path:
    version = str(getattr(config.suite, "version", "v2"))
    if target is not None:
        return export_to(target, part, checkpoint, config.profile, version)
    return exported(part, checkpoint, config.profile, version, config.paths.cache)
