"""Trained pairs: a folder of weights and a card in, a pair that writes reports out."""
