"""In: an address and what a reader does. Out: the pages, one a script, which Streamlit runs from top to bottom."""
