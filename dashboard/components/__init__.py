"""In: values. Out: what pages share: components of Streamlit's version 2 (no iframe, no build step) and controls."""
