"""``python -m training.bench``: measure the speeds."""

from training.bench.speeds import main

main()
