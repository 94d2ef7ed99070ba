"""Training modules: a model, its loss, its optimiser and what is watched while it trains."""
