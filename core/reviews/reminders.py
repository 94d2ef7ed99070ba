"""What to write to a reader who has not finished, as text to copy. It says nothing of a patient, a study or a model."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from core.reviews.progress import SessionProgress
from core.reviews.rubrics import ReviewError

PAGE = "/review"


def page_address(address: str) -> str:
    """The address of the Review page of a dashboard.

    Args:
        address: of the dashboard, as "https://cxr.hospital.example"; of a page of it is fine too.

    Raises:
        ReviewError: it is no address of a web page.
    """
    parts = urlsplit(address.strip())
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.username
        or any(map(str.isspace, address.strip()))
    ):
        raise ReviewError(f"'{address}' is no address of a dashboard. Write it as https://cxr.hospital.example.")
    return f"{parts.scheme}://{parts.netloc}{PAGE}"


def invitation_text(title: str, address: str, code: str, expires: str) -> str:
    """What to send to an invited reader: the link holds the code."""
    return (
        f"You are invited to read in the session “{title}”.\n"
        f"Open this link once, before {expires[:10]}, on the computer on which you will read. It is for you alone:\n"
        f"{page_address(address)}?invite={code}\n"
    )


def reminders(about: SessionProgress, address: str) -> dict[str, str]:
    """A reminder for each reader of an open session who has screens left, by reader.

    Raises:
        ReviewError: as `page_address`.
    """
    link = page_address(address)
    found: dict[str, str] = {}
    for each in about.readers if about.state == "open" else ():
        left = each.screens - each.done - each.skipped
        if not left:
            continue
        left_over = 0 if each.pace is None else max(1, math.ceil(left * each.pace / 60))
        unit = "minute" if left_over == 1 else "minutes"
        minutes = f", about {left_over} {unit} at your pace" if left_over else ""
        begun = "have not begun yet" if left == each.screens else "can go on where you stopped"
        found[each.reader] = (
            f"Dear {each.reader},\n"
            f"in the session “{about.design.title}” {left} of {each.screens} screens are left for you{minutes}. "
            f"You {begun}:\n"
            f"{link}\n"
            "Thank you for reading.\n"
        )
    return found
