"""What all pages share to the eye and to a screen reader: the page's name, the notice, focus, contrast, print."""

from __future__ import annotations

import html

import streamlit as st

from dashboard.components.source import script
from dashboard.first_paint import NOTICE

# White on the theme's blue is 3.9 to 1, on this darker one 5.3 (WCAG 2.2 AA: 4.5); text in the theme's blue on the dark
# page is 5 to 1, which a darker theme colour would not be.
_STYLE = """
<style>
.st-key-cxr-history { display: none; }
.cxr-notice {
  position: fixed; inset: auto 0 0 0; z-index: 90; text-align: center; font-size: 0.78rem; line-height: 1.7rem;
  color: #e6b450; background: #14181d; border-top: 1px solid #29313a;
}
.cxr-page-name {
  position: absolute !important; width: 1px; height: 1px; padding: 0 !important; margin: -1px !important;
  overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}
.stApp a:focus-visible, .stApp button:focus-visible, .stApp summary:focus-visible, .stApp [tabindex]:focus-visible {
  outline: 2px solid #7ab8ea !important; outline-offset: 2px;
}
.stApp [data-tag-index] { background-color: #326ea2 !important; }
.stApp [data-testid="stBaseButton-primary"] { background: #326ea2; border-color: #326ea2; color: #fff; }
@media print {
  .stApp, [data-testid="stMain"], [data-testid="stAppViewContainer"] {
    position: static !important; overflow: visible !important; height: auto !important;
  }
  .stApp { color-scheme: light; background: #fff !important; color: #000 !important;
    --st-text-color: #000; --st-background-color: #fff; --st-secondary-background-color: #fff; --st-border-color: #999;
  }
  .stApp :is(p, h1, h2, h3, h4, h5, label, span, td, th, li) { color: #000 !important; }
  [data-testid="stHeader"], [data-testid="stToolbar"], [data-testid="stFileUploader"], .stApp .stButton,
  .stApp .stDownloadButton, .stApp .stPopover, .stApp .stButtonGroup, .stApp .stSelectbox, .stApp .stMultiSelect,
  .stApp .stTextInput, .st-key-rail details { display: none !important; }
  .st-key-rail > * { position: static !important; max-height: none !important; overflow: visible !important; }
  .st-key-rail { --viewer-bar: none; --stage-most: 12cm; }
  .cxr-notice { position: static; color: #000; background: #fff; border: 0; }
}
</style>
"""


_HISTORY = st.components.v2.component("cxr_history", html="<i hidden></i>", js=script("history.js"))


def dress(page_title: str) -> None:
    """Give a page its name, in the browser's tab and as its only heading of the first order, and what all pages share.

    Args:
        page_title: as the navigation has it.
    """
    st.set_page_config(page_title=f"{page_title} · CXR Lens")
    with st.container(key="cxr-history"):
        _HISTORY(key="history")
    st.html(
        f"{_STYLE}<h1 class='cxr-page-name'>{html.escape(page_title)}</h1>"
        f"<div class='cxr-notice' role='note'>{NOTICE}</div>"
    )
