"""Released schemas, oldest first."""
