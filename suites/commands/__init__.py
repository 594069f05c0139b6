"""The commands of ``python -m suites``, one module each."""

OVERRIDES = (
    "such as durations=[5,60] backends=[torch_cpu,mlx_cpu] measure=full weights.rmvpe=FILE audio=FILE; "
    "after a suite's name, --help lists all of them"
)
