"""The model of a document, and how it becomes markdown, HTML, CSV, JSON or JUnit."""
