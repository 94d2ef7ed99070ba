"""The engine, room by room along the way of the data: studies and reports in, reports with explanations out."""

__version__ = "0.1.0"
