"""Every row of the registry is true: built on the meta device, it has the shapes that the table states."""

from __future__ import annotations

import pytest
import torch

from core.decoders import build_decoder
from core.encoders import build_encoder
from core.registry import DECODERS, ENCODERS, SIZES, all_pairs, lookup
from core.text import Vocabulary
from core.types import CXRLensError, VisualTokens

pytestmark = pytest.mark.numeric

ROWS = [(name, size) for name, spec in ENCODERS.items() for size in spec.sizes]


def options(name: str, size: str, vocabulary: Vocabulary) -> dict[str, object]:
    return {"vocabulary": vocabulary} if name in ("cve", "ccve") and size == "tiny" else {}


@pytest.mark.parametrize(("name", "size"), ROWS)
def test_every_encoder_row_has_its_shapes(name: str, size: str, vocabulary: Vocabulary) -> None:
    shape = ENCODERS[name].sizes[size]
    with torch.device("meta"):
        encoder = build_encoder(name, size, **options(name, size, vocabulary)).eval()
        visual = encoder(torch.empty(2, 1, shape.image_size, shape.image_size))
    assert visual.tokens.shape == (2, shape.num_tokens, shape.width)
    assert visual.grids == shape.grids


def test_the_papers_shapes() -> None:
    # Typed from the paper, sections 3.1 and 4.2, and paper-notes 1.0.
    stated = {"dve": (224, 49, 1024), "fve": (224, 98, 768), "cve": (288, 81, 640), "ccve": (288, 13, 640)}
    for name, (pixels, tokens, width) in stated.items():
        shape = ENCODERS[name].sizes["paper"]
        assert (shape.image_size, shape.num_tokens, shape.width) == (pixels, tokens, width)


def test_cve_layer4_mode_gives_what_the_published_code_gives() -> None:
    with torch.device("meta"):
        encoder = build_encoder("cve", "paper", feature="layer4").eval()
        assert encoder(torch.empty(1, 1, 288, 288)).tokens.shape == (1, 81, 2560)


@pytest.mark.parametrize("filters", ["independent", "shared_stem", "bank"])
def test_all_filter_kinds_have_the_papers_shape(filters: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder("ccve", "paper", filters=filters).eval()
        assert encoder(torch.empty(1, 1, 288, 288)).tokens.shape == (1, 13, 640)
    if filters == "shared_stem":
        assert sum(p.numel() for p in encoder.filters.parameters()) == 6_981  # src: paper-notes 1.4


@pytest.mark.parametrize(("encoder", "decoder"), all_pairs())
@pytest.mark.parametrize("size", SIZES)
def test_every_pair_fits(encoder: str, decoder: str, size: str) -> None:
    shape = ENCODERS[encoder].sizes[size]
    with torch.device("meta"):
        built = build_decoder(decoder, size, token_width=shape.width, vocabulary_size=50)
        tokens = VisualTokens(torch.empty(2, shape.num_tokens, shape.width), shape.grids, ("x",) * shape.num_tokens)
        memory = built.encode(tokens)
    assert memory.visual.stop - memory.visual.start == shape.num_tokens
    assert len(all_pairs()) == len(ENCODERS) * len(DECODERS)


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(CXRLensError, match=r"Unknown encoder 'fvee'. Did you mean 'fve'\? Known: dve, fve, cve, ccve"):
        lookup(ENCODERS, "fvee", "encoder")


def test_decoders_state_whether_they_need_sentences() -> None:
    for name, spec in DECODERS.items():
        with torch.device("meta"):
            assert build_decoder(name, "tiny", token_width=8, vocabulary_size=9).sentences == spec.sentences


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENCODERS))
def test_paper_size_encoders_run(name: str) -> None:
    shape = ENCODERS[name].sizes["paper"]
    torch.manual_seed(0)
    encoder = build_encoder(name, "paper").freeze()
    visual = encoder(torch.rand(1, 1, shape.image_size, shape.image_size))
    assert visual.tokens.shape == (1, shape.num_tokens, shape.width)
    assert torch.isfinite(visual.tokens).all()
    assert visual.tokens.std() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", list(DECODERS))
def test_paper_size_decoders_run(name: str) -> None:
    torch.manual_seed(0)
    decoder = build_decoder(name, "paper", token_width=640, vocabulary_size=1_000).eval()
    visual = VisualTokens(torch.randn(2, 13, 640), (), ("ccve",) * 13)
    ids = torch.tensor([[1, 9, 8, 4, 7, 4], [1, 5, 4, 6, 6, 4]])
    output = decoder(visual, ids)
    assert output.logits.shape == (2, 6, 1_000)
    assert torch.isfinite(output.logits).all()
