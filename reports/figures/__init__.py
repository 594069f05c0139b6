"""The figures of reports, each drawn from records alone."""
