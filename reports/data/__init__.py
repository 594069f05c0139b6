"""Records as data: frames of records, runs of a folder, traces."""
