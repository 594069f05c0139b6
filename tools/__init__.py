"""Programs that make the project's data."""
