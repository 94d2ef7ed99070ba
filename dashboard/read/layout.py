"""How the Read page lies: the image in sight beside the reports, and the answer to a question beside the image.

On a screen of at least 641 pixels the image stands left and stays while the reports scroll. On a narrower one it stands
above the reports; while something is asked, it is small and stays above them, so that map, words and verdict are seen
together. Several maps side by side take the screen themselves. Custom properties reach into the viewer:
``--stage-most`` is the most height of its picture, ``--viewer-bar`` whether its tools are shown.
"""

from __future__ import annotations

import streamlit as st

ANSWER = "answer"
"""Key of the container with the answer's title, method and verdict; it is there while something is asked."""
TITLE, METHOD = "answer-title", "answer-method"
"""Keys of the answer's first two rows: in a window of at most 1,200 pixels each is one line, so that the whole map is
in sight below them."""
BESIDE = "answer-beside"
"""Key of the container that is there while maps stand side by side."""
INTRODUCTION, FACTS = "introduction", "facts"
"""Keys of what says what the page is, and of what is known of the study; both give way to an answer."""

_STYLE = """
<style>
.st-key-rail { --stage-most: max(16rem, calc(100vh - 18rem)); }
.st-key-rail:has(.st-key-answer) { --stage-most: max(13rem, calc(100vh - 37rem)); }
.st-key-rail:has(.st-key-answer) .st-key-facts, .stMain:has(.st-key-answer) .st-key-introduction { display: none; }
.st-key-answer { gap: 0.35rem; scroll-margin-top: 4.5rem; }
@media (max-width: 1200px) {
  .st-key-answer-title, .st-key-answer-method { flex-wrap: nowrap; }
  .st-key-answer-method [data-testid="stWidgetLabel"] {
    position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  }
  .st-key-answer-method .st-key-explain { flex: 1 1 8rem; min-width: 0; width: auto !important; }
}
@media (min-width: 641px) {
  .st-key-rail > * { position: sticky; top: 4.2rem; max-height: calc(100vh - 6.2rem); overflow-y: auto; }
}
@media (max-width: 640px) {
  .st-key-rail:has(.st-key-answer) { --stage-most: 30vh; --viewer-bar: none; }
  [data-testid="stColumn"]:has(.st-key-rail .st-key-answer):not(:has(.st-key-answer-beside)) {
    position: sticky; top: 3.8rem; z-index: 5; max-height: 70vh; overflow-y: auto; padding-bottom: 0.4rem;
    background: var(--st-background-color, #0b0e11); border-bottom: 1px solid #8886;
  }
}
</style>
"""


def lay_out() -> None:
    """Set the styles; once a run."""
    st.html(_STYLE)
