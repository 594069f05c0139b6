"""A run: its configuration, its workers, and the protocols that time and judge the cases."""
