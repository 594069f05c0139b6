"""The worker process: loads one backend, answers requests over a pipe, and times, counts and traces its calls."""
