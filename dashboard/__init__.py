"""The dashboard: pages that draw what core computes."""
