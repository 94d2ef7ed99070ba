"""What came of drafts, as a table in words: for `report.html` and the results page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.reviews.editing import ArmOutcome
from core.reviews.report_page import NOTHING, estimate

HEAD = (
    *("From", "Reports", "Left as it was", "Seconds on the screen", "Seconds of typing", "Words changed"),
    *("Errors of the draft", "Errors left", "Planted errors caught"),
)
ABOUT = (
    "Means of all reports that were finished, with 95 % intervals over studies. Typing: from the first key to the "
    "last. Words changed: inserted, deleted or replaced from the draft to the report. Errors: observations that a "
    "text says otherwise than the reference (rule labeler), before and after editing. Planted: errors that were put "
    "into drafts, and how many of them are no longer in the reports."
)


def rows_in_words(outcomes: Sequence[ArmOutcome], titles: Mapping[str, str] | None = None) -> list[tuple[str, ...]]:
    """The cells of `HEAD`, a row an arm; ``titles`` are of the systems."""
    return [
        (
            (titles or {}).get(row.arm, row.arm),
            str(row.readings),
            str(row.unchanged),
            *(estimate(each, 0) for each in (row.seconds, row.typing)),
            *(estimate(each, 1) for each in (row.words_changed, row.draft_errors, row.errors_left)),
            f"{row.caught} of {row.planted}" if row.planted else NOTHING,
        )
        for row in outcomes
    ]
