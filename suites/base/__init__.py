"""What every room stands on: errors, paths, backends, the environment, records and statistics."""
