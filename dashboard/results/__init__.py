"""What the Results page shows: a module a view, each with one function ``show``."""
