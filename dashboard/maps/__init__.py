"""In: stored embeddings. Out: what the Embeddings page shows: its controls, its maps, the studies chosen on them."""
