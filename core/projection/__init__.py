"""Studies in, their embeddings and maps of them out, with numbers for how far a map can be trusted."""
