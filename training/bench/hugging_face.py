"""A model of transformers written with our search, against its own ``generate``: ``make bench PARTS=hugging_face``.

ViT and GPT-2 of 50 million random weights are built here; both write the same reports of the same length, from pixels.
Ours also keeps where each piece of a word looked, which ``generate`` does not.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.bundles.hugging_face import import_folder
from core.bundles.library import BundleLibrary
from core.bundles.pair import encode_batch, to_batch, write_from_tokens
from core.decoders.search import GenerateConfig
from training.bench.record import Line
from training.bench.turns import in_turns

SIDE, PIECES = 224, 60
WORKS = ((1, 1, 5), (1, 4, 5), (4, 4, 3), (24, 4, 2))
"""Studies, beams, turns."""
VOCABULARY = 8_000


def _folder(path: Path) -> tuple[Any, Any]:
    """Write a folder as transformers does; its model and tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        GenerationConfig,
        GPT2Config,
        PreTrainedTokenizerFast,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    torch.manual_seed(0)
    words = {"<|end|>": 0} | {f"word{number}": number for number in range(1, VOCABULARY)}
    made = Tokenizer(models.WordLevel(words, unk_token="<|end|>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    encoder = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    decoder = GPT2Config(
        vocab_size=VOCABULARY, n_positions=128, n_embd=512, n_layer=6, n_head=8, bos_token_id=0, eos_token_id=0
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    ids = {"decoder_start_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    model = VisionEncoderDecoderModel(config=config).eval()
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(path)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", unk_token="<|end|>")
    tokenizer.save_pretrained(path)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(path)
    return model, tokenizer


def report() -> Iterator[Line]:
    """Reports by ``generate``, and by ours."""
    from transformers.utils import logging as said

    said.set_verbosity(logging.ERROR)
    said.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        theirs, tokenizer = _folder(Path(place, "model"))
        import_folder(Path(place, "model"), "bench", Path(place, "bundles"))
        ours = BundleLibrary(Path(place, "bundles")).load("bench")
        rng = np.random.default_rng(0)
        weights = sum(each.numel() for each in theirs.parameters()) / 1e6
        yield f"ViT and GPT-2, {weights:.0f} million random weights, {PIECES} pieces of words each; from pixels."
        same = []
        for studies, beams, turns in WORKS:
            images = to_batch([rng.random((SIDE, SIDE)).astype(np.float32) for _ in range(studies)], SIDE, ours.fit)
            pixels = ours.encoder.normalize(images)
            own = {"num_beams": beams, "early_stopping": beams > 1, "do_sample": False}
            how = GenerateConfig(beam_size=beams, max_words=PIECES, end_penalty=1e4, removed_words=True)

            def generated(pixels: Any = pixels, own: dict[str, Any] = own) -> list[str]:
                ids = theirs.generate(pixels, min_new_tokens=PIECES, max_new_tokens=PIECES, **own)
                return [tokenizer.decode(each, skip_special_tokens=True).strip() for each in ids]

            def written(images: Any = images, how: GenerateConfig = how) -> list[str]:
                return [each.text for each in write_from_tokens(ours, encode_batch(ours, images), how)]

            what = f"{'greedy' if beams == 1 else f'beam {beams}'}, {studies} studies"
            same.append(f"{sum(one == other for one, other in zip(generated(), written(), strict=True))} of {studies}")
            yield in_turns(what, "transformers' generate", generated, written, None, clock=True, turns=turns)
        yield f"Texts that are the same both ways, by row: {', '.join(same)}."
