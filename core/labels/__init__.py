"""What reports say: the 14 observations, their states, the labelers."""
