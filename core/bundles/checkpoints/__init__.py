"""Checkpoints of R2Gen and of IFCC in, bundles out: read without running code, every tensor matched by its name."""
