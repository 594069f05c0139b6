"""What models run on: audio with known F0, recordings, weights, and external pitch estimators."""
