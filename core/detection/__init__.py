"""In: reports of films on which one finding is turned up step by step. Out: how small a finding a system reports."""
