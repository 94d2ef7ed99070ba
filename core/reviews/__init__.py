"""Review sessions: radiologists read blinded reports, mark them, and settle; docs/reviews.md."""
