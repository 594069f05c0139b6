"""A regression gate: a run reduced to what is judged, and the verdicts beside a baseline."""
