"""The paper's tables and ours beside them: results in, rows for a page or a file out."""
