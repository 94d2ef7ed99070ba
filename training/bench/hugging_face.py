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
from training.bench.scale import fastest

SIDE, PIECES, STUDIES, BEAMS = 224, 60, 4, 4
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


def report() -> Iterator[str]:
    """A table: seconds of ``generate``, ours, and how many times faster."""
    from transformers.utils import logging as said

    said.set_verbosity(logging.ERROR)
    said.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        theirs, tokenizer = _folder(Path(place, "model"))
        import_folder(Path(place, "model"), "bench", Path(place, "bundles"))
        ours = BundleLibrary(Path(place, "bundles")).load("bench")
        rng = np.random.default_rng(0)
        images = to_batch([rng.random((SIDE, SIDE)).astype(np.float32) for _ in range(STUDIES)], SIDE, ours.fit)
        pixels = ours.encoder.normalize(images)
        weights = sum(each.numel() for each in theirs.parameters()) / 1e6
        yield f"ViT and GPT-2, {weights:.0f} million random weights, {STUDIES} studies, {PIECES} pieces of words each"
        yield "| what | generate, s | ours, s | times faster |\n|---|---:|---:|---:|"
        for beams in (1, BEAMS):
            own = {"num_beams": beams, "early_stopping": beams > 1, "do_sample": False}
            how = GenerateConfig(beam_size=beams, max_words=PIECES, end_penalty=1e4, removed_words=True)

            def generated(own: dict[str, Any] = own) -> Any:
                return theirs.generate(pixels, min_new_tokens=PIECES, max_new_tokens=PIECES, **own)

            def written(how: GenerateConfig = how) -> Any:
                return write_from_tokens(ours, encode_batch(ours, images), how)

            texts = [each.text for each in written()]
            wanted = [tokenizer.decode(ids, skip_special_tokens=True) for ids in generated()]
            same = sum(a == b.strip() for a, b in zip(texts, wanted, strict=True))
            baseline, fast = fastest(generated), fastest(written)
            what = f"{'greedy' if beams == 1 else f'beam {beams}'}, {same} of {STUDIES} texts the same"
            yield f"| {what} | {baseline:.3f} | {fast:.3f} | {baseline / fast:.2f} |"
