"""The commands of ``python -m suites``, one module each."""
