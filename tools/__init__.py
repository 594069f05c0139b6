"""Programs beside the project: makers of its data, checks that need more than the project does."""
