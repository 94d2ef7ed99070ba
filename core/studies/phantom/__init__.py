"""The phantom: an analytic thorax whose image, report and truth are all known.

`anatomy` draws a patient and an exposure, `findings` the abnormalities, `cavity` and `pathology` their shapes,
`render` the image, `grammar` the report, with `templates`; `statements` are its sentences with their truth; `source`
puts all together by study; `graded` turns one finding up, step by step.
"""

from core.studies.phantom.anatomy import Anatomy, Exposure
from core.studies.phantom.findings import Fact
from core.studies.phantom.graded import GradedFilms, GradedSource, parse_films
from core.studies.phantom.source import PHANTOM_VERSION, PhantomSource, PhantomStudy, make_phantom, write_phantom
from core.studies.phantom.statements import Statement

__all__ = [
    "PHANTOM_VERSION",
    "Anatomy",
    "Exposure",
    "Fact",
    "GradedFilms",
    "GradedSource",
    "PhantomSource",
    "PhantomStudy",
    "Statement",
    "make_phantom",
    "parse_films",
    "write_phantom",
]
