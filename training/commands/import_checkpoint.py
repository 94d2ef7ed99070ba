"""The commands ``cxr-lens import r2gen`` and ``cxr-lens import ifcc``: checkpoints of others become bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.paths import BUNDLES
from training.console import note, print_result
from training.options import AsJson, Bundles, ImportedName, Licence, ReplaceSystem, TrainedOn, preset_names

if TYPE_CHECKING:
    from core.bundles.checkpoints.writing import Imported

Checkpoint = Annotated[Path, typer.Argument(metavar="FILE", help="The checkpoint, or its weights as safetensors.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``cxr-lens import``."""
    app.command()(r2gen)
    app.command()(ifcc)


def r2gen(
    file: Checkpoint,
    name: ImportedName,
    annotations: Annotated[
        Path | None, typer.Option(help="annotation.json that it was trained with: its words follow from it.")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Instead of it, its words as JSON: a list by id, from 1, or an object.")
    ] = None,
    threshold: Annotated[
        int,
        typer.Option(min=0, help="How often a word has to occur in the training reports.", show_default="10, else 3"),
    ] = 0,
    views: Annotated[
        int, typer.Option(min=1, max=2, help="Images a study: 1 as for MIMIC-CXR, 2 as for IU X-ray.")
    ] = 1,
    heads: Annotated[int, typer.Option(min=1, help="Of its attention (--num_heads).")] = 8,
    memory_heads: Annotated[int, typer.Option(min=1, help="Of its relational memory (--rm_num_heads).")] = 8,
    max_words: Annotated[int, typer.Option(min=1, max=511, help="Longest report (--max_seq_length).")] = 100,
    trained_on: TrainedOn = "",
    licence: Licence = "",
    replace: ReplaceSystem = False,
    bundles: Bundles = BUNDLES,
    as_json: AsJson = False,
) -> None:
    """Make a bundle of a checkpoint of R2Gen (Chen et al. 2020) for one image. See docs/systems.md."""
    from core.bundles.checkpoints.r2gen import read_r2gen

    def read() -> Imported:
        return read_r2gen(
            file,
            annotations=annotations,
            vocabulary=vocabulary,
            threshold=threshold,
            views=views,
            heads=heads,
            memory_heads=memory_heads,
            max_words=max_words,
        )

    card = {"trained_on": trained_on, "licence": licence}
    _bring_in(read, file, bundles, name, card, replace=replace, as_json=as_json)


def ifcc(
    file: Checkpoint,
    name: ImportedName,
    vocabulary: Annotated[
        Path,
        typer.Option(help="Word embeddings that it was trained with (.txt, .txt.gz), or its words as a JSON list."),
    ],
    views: Annotated[int, typer.Option(min=1, help="Images a study that it was trained with (--multi-image).")] = 3,
    max_sentences: Annotated[int, typer.Option(min=1, max=64, help="Of a cnnrnnrnn (--max-sent).")] = 1,
    max_words: Annotated[int, typer.Option(min=1, max=512, help="Of a cnnrnnrnn's sentence (--max-word).")] = 128,
    trained_on: TrainedOn = "",
    licence: Licence = "",
    replace: ReplaceSystem = False,
    bundles: Bundles = BUNDLES,
    as_json: AsJson = False,
) -> None:
    """Make a bundle of a checkpoint of IFCC (m2trans, trans, cnnrnnrnn) or of the paper's own code."""
    from core.bundles.checkpoints.ifcc import read_ifcc

    def read() -> Imported:
        return read_ifcc(file, vocabulary=vocabulary, views=views, max_sentences=max_sentences, max_words=max_words)

    card = {"trained_on": trained_on, "licence": licence}
    _bring_in(read, file, bundles, name, card, replace=replace, as_json=as_json)


def _bring_in(
    read: Callable[[], Imported],
    file: Path,
    bundles: Path,
    name: str,
    card_says: Mapping[str, str],
    *,
    replace: bool,
    as_json: bool,
) -> None:
    from core.bundles.checkpoints.writing import write_imported
    from core.bundles.names import check_name
    from core.registry import pair_title
    from core.systems.added import names_taken
    from training.threads import use_threads_for

    # Before minutes of reading.
    check_name(name, bundles, taken=[*names_taken(), *preset_names()], replace=replace)
    imported = read()
    use_threads_for("paper")
    card = write_imported(imported, file, bundles, name, **card_says)
    weights = sum(each.numel() for state in (imported.encoder_state, imported.decoder_state) for each in state.values())
    told = {
        "name": name,
        "pair": pair_title(card.encoder, card.decoder),
        "words": len(imported.vocabulary),
        "weights": weights,
        "encoder": card.content["encoder"],
        "decoder": card.content["decoder"],
        "write": dict(card.write),
        "fit": card.content["fit"],
    }
    print_result(
        told,
        as_json,
        lambda: (
            f"{name}: {told['pair']}, {weights / 1e6:.1f} million weights, {len(imported.vocabulary):,} words; images "
            f"of {imported.side} pixels, {card.fit}. It was read again and computes what it did."
        ),
    )
    note(f"written: {bundles / name}")
