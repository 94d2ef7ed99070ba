"""In: the words or the region that a reader of the Read page asks about. Out: what stands behind them, on the page."""
