"""The command ``cxr-lens embed``: the studies of a source as encoders see them, for the dashboard's maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from core.paths import BUNDLES
from core.types import Split
from training import console
from training.commands.write import WHAT
from training.options import AsJson, BundleNames, Bundles, Device, Precision

if TYPE_CHECKING:
    from core.projection.embeddings import Embedded


def embed(
    source: Annotated[str, typer.Argument(help=f"Where the studies are: {WHAT}")],
    bundle: BundleNames = None,
    bundles: Bundles = BUNDLES,
    split: Annotated[Split | None, typer.Option(help="Only these studies.")] = None,  # type: ignore[valid-type]
    most: Annotated[
        int | None, typer.Option(min=3, help="So many studies, drawn at random.", show_default="all")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that are encoded together.")] = 16,
    device: Device = "auto",
    precision: Precision = "fp32",
    as_json: AsJson = False,
) -> None:
    """Compute the maps' embeddings of a source and keep them on disk. Interrupted, it goes on where it stopped."""
    from dataclasses import asdict

    from core.bundles.card import no_bundle
    from core.bundles.library import BundleLibrary
    from core.devices import open_device
    from core.projection.embeddings import Embedding
    from core.projection.embeddings import embed as embed_studies
    from core.studies.sources import source_key

    library = BundleLibrary(bundles)
    names = bundle or [card.name for card in library.cards()]
    if not names:
        raise no_bundle(bundles)
    for name in names:
        library.card(name)  # a name that there is not ends it now, not after the others
    key, where = source_key(source), str(open_device(device))
    found = {}
    for name in names:
        work = Embedding(key, bundles, name, split, most, batch, where, precision)
        with console.progress_bar("%", name, hidden=console.is_quiet()) as progress:
            found[name] = embed_studies(work, lambda share, what: progress(int(100 * share), 100))
    result = {name: asdict(each) for name, each in found.items()}
    console.print_result(result, as_json, lambda: "\n".join(map(_line, found, found.values())))


def _line(name: str, each: Embedded) -> str:
    """What became of one bundle's, for a reader."""
    lines = [f"{name}: {each.kept:,} of {each.studies:,} studies in {each.path}"]
    lines += [f"  left out: {study_id}: {why}" for study_id, why in list(each.unreadable.items())[:20]]
    if len(each.unreadable) > 20:
        lines.append(f"  and {len(each.unreadable) - 20:,} more")
    return "\n".join(lines)
