"""What a report is made of, and how it becomes markdown, HTML, CSV, JSON or JUnit."""
