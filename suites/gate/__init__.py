"""A regression gate: a run reduced to what is judged, and its verdicts against a baseline."""
