"""Custom components (Streamlit's version 2: no iframe, no build step)."""
