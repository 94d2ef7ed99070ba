"""Review sessions: studies with reports in, what blinded radiologists marked of them out; docs/reviews.md."""
