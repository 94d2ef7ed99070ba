"""How faithful explanations are: trained pairs in, scores of each method out."""
