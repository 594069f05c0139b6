"""What is completed, without a framework; and by the shells themselves, where they are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from suites.commands.completion import SCRIPTS, candidates

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("re", ["report"]),
        ("--j", ["--json"]),
        ("run rmv", ["rmvpe"]),
        ("run res", ["resume="]),
        ("run --json rmv", ["rmvpe"]),
        ("trace syn", ["synthesizer"]),
        ("trace acc", []),
        ("prof", ["profile"]),
        ("profile syn", ["synthesizer"]),
        ("profile a", []),
        ("profile rmvpe 'backends=[mlx_cpu,torch_cp", ["backends=[mlx_cpu,torch_cpu"]),
        ("bundle syn", ["synthesizer"]),
        ("bundle rmvpe fol", []),
        ("bundle rmvpe folder prec", ["precision="]),
        ("run rmvpe prec", ["precision="]),
        ("run rmvpe precision=t", ["precision=tf32"]),
        ("run rmvpe 'backends=[torch_cpu,mlx_cp", ["backends=[torch_cpu,mlx_cpu"]),
        ("run rmvpe measure=s", ["measure=smoke"]),
        ("plan pipeline suite.voice=synth_v1_40", ["suite.voice=synth_v1_40k_f0"]),
        ("plan hubert suite.limits.fp32.enc", ["suite.limits.fp32.encode_max_abs="]),
        ("run all prof", ["profile="]),
        ("gate runs/x --pol", ["--policy"]),
        ("gate runs/x --policy d", ["default"]),
        ("report x --tables ", ["csv", "parquet"]),
        ("selftest k", ["known"]),
        ("completion z", ["zsh"]),
        ("run rmvpe audio=", []),
        ("run nothing prec", []),
        ("nothing x", []),
        ("list ", []),
    ],
)
def test_words_that_fit(line, found):
    assert candidates(line.split(" ")) == found


def test_no_framework_is_imported():
    code = "import sys; from suites.commands.completion import candidates; print(candidates(['run', 'rmvpe', 'prec']))"
    code += "; print({'torch', 'mlx.core', 'pandas', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["['precision=']", "set()"]


TRY = {
    "bash": """
eval "$(python -m suites completion bash)"
COMP_WORDBREAKS=$' \\t\\n"><=;|&(:'
for line in "python -m suites pl" "python -m suites run rmvpe precision=t"; do
    COMP_LINE=$line COMP_POINT=${#line}
    _rvc_parity; echo "${COMPREPLY[@]}"
done
python() { :; }; COMP_LINE="python nothing" COMP_POINT=14; _rvc_parity; echo "${#COMPREPLY[@]}"
""",
    "fish": """
python -m suites completion fish | source
complete -C "python -m suites pl"
complete -C "python -m suites run rmvpe precision=t"
complete -C "rvc-parity nothing pl" | count
""",
    "zsh": """
compdef() { echo $1 }
eval "$(python -m suites completion zsh)"
""",
}
TOLD = {"bash": ["plan", "tf32", "0"], "fish": ["plan", "precision=tf32", "0"], "zsh": ["_rvc_parity"]}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_in_the_shell(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    import os

    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [shell, "-c", TRY[shell]], capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PATH": path}
    )
    assert [line.strip() for line in done.stdout.splitlines() if line] == TOLD[shell], done.stderr
