"""Is this a film like those that a pair learned from? A measured distance, and a sentence where it is large.

`distance` measures, `gate` judges an image and says why; `core.bundles.gates` keeps what is known of a family's films.
"""
