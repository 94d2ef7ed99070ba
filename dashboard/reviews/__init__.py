"""In: the store of review sessions. Out: what the Review and the reading page show, from design to results."""
