"""Router of the dashboard: ``cxr-lens dashboard``, or ``streamlit run dashboard/app.py`` from any folder."""

from __future__ import annotations

import sys
from pathlib import Path

# Streamlit puts this file's own folder on the path; our packages lie one folder up.
HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

import streamlit as st  # noqa: E402

from core.types import CXRLensError  # noqa: E402
from dashboard import access, first_page, server, session  # noqa: E402
from dashboard.components import look  # noqa: E402
from dashboard.plain import plain_message  # noqa: E402

st.set_page_config(page_title="CXR Lens", page_icon=str(HERE / "icon.svg"), layout="wide")
if refusal := server.refusal():
    st.error(refusal, icon=":material/block:")
    st.stop()
st.logo(str(HERE / "logo.svg"), size="large")
session.start()

READ = st.Page(
    "app_pages/read.py",
    title="Read",
    icon=":material/radiology:",
    url_path="",
    default=True,
    help="One radiograph, its reference report and the generated reports, side by side.",
)


def read_by_name() -> None:
    """Lead from /read, as other programs link to it, to the first page, which has no name of its own."""
    asked = {name: st.query_params.get_all(name) for name in st.query_params}
    st.switch_page(READ, query_params=asked)


page = st.navigation(
    [
        READ,
        st.Page(read_by_name, title="Read", url_path="read", visibility="hidden"),
        st.Page(
            "app_pages/filters.py",
            title="Filters",
            icon=":material/filter_b_and_w:",
            url_path="filters",
            help="The 13 filtered images of CCVE, and how much the decoder looked at each.",
        ),
        st.Page(
            "app_pages/embeddings.py",
            title="Embeddings",
            icon=":material/scatter_plot:",
            url_path="embeddings",
            help="A map of the studies as an encoder sees them.",
        ),
        st.Page(
            "app_pages/cases.py",
            title="Cases",
            icon=":material/view_list:",
            url_path="cases",
            help="Many studies, and what chosen models wrote about them, side by side.",
        ),
        st.Page(
            "app_pages/results.py",
            title="Results",
            icon=":material/table_chart:",
            url_path="results",
            help="Scores of the models beside the paper's.",
        ),
        st.Page(
            "app_pages/detection.py",
            title="Detection",
            icon=":material/visibility:",
            url_path="detection",
            help="How small a finding the models still report.",
        ),
        st.Page("app_pages/reading.py", title="Reading", url_path="reading", visibility="hidden"),
        st.Page(
            "app_pages/review.py",
            title="Review",
            icon=":material/rate_review:",
            url_path="review",
            help="Review sessions: radiologists read reports and mark errors.",
        ),
        st.Page(
            "app_pages/about.py",
            title="About",
            icon=":material/info:",
            url_path="about",
            help="Model cards, data, limits and licences.",
        ),
    ],
    position="top",
)

# There before the page's own work begins. A process that is spawned from here has no page.
look.dress(getattr(page, "title", ""))

try:
    access.admit(getattr(page, "url_path", ""))
    page.run()
except CXRLensError as error:
    st.error(plain_message(error), icon=":material/error:")
finally:
    first_page.SHOWN.set()
