"""The text of a report in, what it says of each observation out, with the words that say it."""
