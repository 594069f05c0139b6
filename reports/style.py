"""One style for all figures; colours by Okabe and Ito, told apart by markers as well."""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLES = {
    "torch_cpu": ("#0072B2", "o"),
    "torch_cuda": ("#56B4E9", "s"),
    "torch_mps": ("#009E73", "D"),
    "mlx_cpu": ("#D55E00", "^"),
    "mlx_gpu": ("#CC79A7", "v"),
}
RC: Any = {
    "figure.dpi": 130,
    "font.size": 9.5,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "rvc-parity",
}


def panels(count: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """That many axes, four in a row at most; ``height``: of a row in inches."""
    columns = min(count, 4)
    rows = -(-count // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.1 * columns, height * rows), squeeze=False, **options)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]
