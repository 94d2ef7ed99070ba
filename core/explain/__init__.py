"""A pair, an image and a question in, what the report's words depend on out."""
