"""What a decoder holds while it writes, for maps of its states."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.bundles.inference import decoder_states
from core.bundles.pair import write_from_tokens
from core.decoders.search import GenerateConfig
from core.registry import DECODERS
from core.text import START, Vocabulary
from tests.tiny_models import snapshot, tiny_pair

pytestmark = pytest.mark.numeric

WRITE = GenerateConfig(beam_size=2, max_words=9)


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_states_are_the_mean_over_the_words_of_its_own_report(decoder: str, vocabulary: Vocabulary) -> None:
    model = tiny_pair("dve", decoder, vocabulary)
    with torch.inference_mode():
        visual = model.encoder(torch.rand(3, 1, 128, 128, generator=torch.Generator().manual_seed(0)))
        before = snapshot(model)
        states = decoder_states(model, visual, WRITE)
        assert snapshot(model) == before
        for row, report in enumerate(write_from_tokens(model, visual, WRITE)):
            one = replace(visual, tokens=visual.tokens[row : row + 1])
            assert torch.allclose(decoder_states(model, one, WRITE)[0], states[row], atol=1e-5)  # whatever its batch
            logits = model.decoder(one, torch.tensor([[START, *report.ids[:-1]]])).logits
            # The logits are linear in the states, so their mean over the words belongs to the mean state.
            assert torch.allclose(model.decoder.get_submodule("output")(states[row]), logits[0].mean(0), atol=1e-4)
