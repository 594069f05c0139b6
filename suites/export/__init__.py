"""The reference as files that other runtimes load, and what the files of others are."""
