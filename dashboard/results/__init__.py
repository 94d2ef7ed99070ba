"""In: an evaluation on disk. Out: what the Results page shows of it, a module a view."""
