"""The phantom: an analytic thorax whose image, report and truth are all known.

`anatomy` draws a patient and an exposure, `findings` the abnormalities, `cavity` and `pathology` their shapes,
`render` the image, `grammar` the report; `source` puts them together by study.
"""

from core.studies.phantom.anatomy import Anatomy, Exposure
from core.studies.phantom.findings import Fact
from core.studies.phantom.grammar import Statement
from core.studies.phantom.source import PHANTOM_VERSION, PhantomSource, PhantomStudy, make_phantom, write_phantom

__all__ = [
    "PHANTOM_VERSION",
    "Anatomy",
    "Exposure",
    "Fact",
    "PhantomSource",
    "PhantomStudy",
    "Statement",
    "make_phantom",
    "write_phantom",
]
