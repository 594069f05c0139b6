"""``python -m rvc_mlx convert``: a recording into another voice, from the command line."""

import sys

import rvc_mlx
from rvc_common.command import Side, run

SIDE = Side(rvc_mlx, "MLX", ("cpu", "gpu"), None)


def main(argv: list[str] | None = None) -> int:
    return run(SIDE, argv)


if __name__ == "__main__":
    sys.exit(main())
