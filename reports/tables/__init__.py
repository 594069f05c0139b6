"""The sections of a report, each made from records alone, or absent with a reason."""
