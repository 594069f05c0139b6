"""``bundle MODEL OUT``: inputs, noise, weights and the reference's value at every stage, for ports in any language."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from rvc_common.outputs import named_path

from ..base.errors import UserError, nearest
from ..base.outcome import PASSED, Answer
from ..bundle.make import BundleRun, new_folder
from ..measure.config import compose_config
from . import OVERRIDES
from .trace import MODELS

HELP = "a folder with which a port in any language is judged stage by stage"
EXAMPLES = (
    ("bundle rmvpe bundles/rmvpe measure=smoke", "a tiny model with seeded weights, in a few seconds"),
    ("bundle synthesizer bundles/voice weights.voice=VOICE.pth --weights --gpu", "your voice, copied as well"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="rmvpe, hubert, synthesizer or pipeline")
    parser.add_argument("out", type=named_path, metavar="OUT", help="a new or empty folder")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=OVERRIDES)
    parser.add_argument("--weights", action="store_true", help="copy checkpoints of yours into it as well")
    parser.add_argument("--gpu", action="store_true", help="tolerances of a port on a GPU, which rounds otherwise")


def run(args: argparse.Namespace) -> Answer:
    if args.model not in MODELS:
        raise UserError(f"unknown model {args.model!r}{nearest(args.model, MODELS)}")
    config = compose_config(args.model, args.overrides)
    if config.out:
        raise UserError(
            f"out={config.out}: the folder of a bundle is the second word: bundle {args.model} {config.out}"
        )
    with tqdm(bar_format="{desc} {n} steps, {elapsed}", dynamic_ncols=True, leave=False, disable=None) as bar:

        def progress(text: str) -> None:
            bar.set_description_str(text[:70], refresh=False)
            bar.update()

        with new_folder(args.out) as folder:
            made = BundleRun(config, "gpu" if args.gpu else "cpu", args.weights, progress)
            made.check_audio()
            about = made.execute(folder)
    lines = [f"{one.label}: {_where(one)}, {megabytes(one.bytes)}" for one in about.weights]
    for probe in about.probes:
        lines.append(f"probe {probe.name}: {len(probe.values)} values, {len(probe.noise)} noise arrays")
        lines += [f"  {one.name}: the reference {one.reference_wrong}" for one in probe.values if one.reference_wrong]
    size = sum(one.bytes for one in about.files)
    values = sum(len(probe.values) for probe in about.probes)
    lines += [f"{args.out}: {about.model}, {values} values of {about.reference}, id {about.id}, {megabytes(size)}"]
    facts = {"folder": str(args.out), "model": about.model, "id": about.id, "values": values, "bytes": size}
    return Answer(PASSED, "\n".join(lines), facts)


def _where(one: object) -> str:
    file, checksum = getattr(one, "file", None), getattr(one, "sha256", "")
    return f"in {file}" if file else f"not copied, SHA-256 {checksum[:12]}... (--weights copies it)"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
