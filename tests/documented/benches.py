"""How the documented commands are run that measure speeds, memory and intervals."""

from __future__ import annotations

from tests import needs
from tests.conftest import ROOT
from tests.documented.programs import Row, make, process
from training.bench.speeds import PARTS

_LONG = "minutes on an idle machine: make -n, and whether the part is there"


def bench_rows() -> dict[str, Row]:
    """A row a command."""
    chosen = ("", " KEEP=1", ' PARTS="rates ratios"', *(f" PARTS={part}" for part in PARTS))
    few = {
        "bench.systems": (" --studies 20", "in all"),
        "bench.sources": (" --studies 400", "memory at most"),
        "bench.intervals": (" --sets 2 --resamples 20", "BCa bootstrap"),
        "bench.maps": (" --studies 60", "UMAP, 60 x"),
        "bench.maps PCA": (" --studies 60", "PCA, 60 x"),
    }
    kept = "assets/bundles/phantom-reports.jsonl"
    return {
        f"python -m training.bench.consensus phantom {kept}": Row(
            given={kept: lambda place: ROOT / kept},
            instead=process,
            slow=True,
            says="report most like the vote",
            needs=needs.BUNDLES.unless((ROOT / kept).is_file()),
        ),
        **{f"make bench{each}": Row(instead=make, says="training.bench.speeds", as_far=_LONG) for each in chosen},
        **{
            f"python -m training.{name}": Row(more, instead=process, slow=True, says=says)
            for name, (more, says) in few.items()
        },
    }
