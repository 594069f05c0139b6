"""``python -m reference_torch convert``: a recording into another voice, from the command line."""

import sys

import reference_torch
from rvc_common.command import Side, run

SIDE = Side(reference_torch, "PyTorch", ("cpu", "cuda", "mps"), "cpu")


def main(argv: list[str] | None = None) -> int:
    return run(SIDE, argv)


if __name__ == "__main__":
    sys.exit(main())
