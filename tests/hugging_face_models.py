"""Folders of small VisionEncoderDecoderModels with random weights, as transformers writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

SIDE = 32
WORDS = ("no", "pleural", "effusion", "or", "pneumothorax", "the", "heart", "is", "mildly", "enlarged", "left", "small")
"""Words of which the tokenizers know beginnings and ends."""


def byte_pairs() -> Any:
    """A byte-level BPE as GPT-2's, whose only special token starts, ends and fills up."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        for part in ("Ġ" + word[: len(word) // 2 + 1], word[len(word) // 2 + 1 :]):
            for place in range(1, len(part)):
                merges[part[:place], part[place]] = None
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = dict.fromkeys([end, *letters, *(first + second for first, second in merges)])
    made = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, list(merges)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=end, eos_token=end, unk_token=end, pad_token=end)


def word_pieces() -> Any:
    """A WordPiece as BERT's: lower case, "##" before what goes on."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    halves = [(word[: len(word) // 2 + 1], word[len(word) // 2 + 1 :]) for word in WORDS]
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,;-'"]
    pieces = [*special, *letters, *("##" + each for each in letters[:26]), *(first for first, _ in halves)]
    pieces += ["##" + second for _, second in halves if second]
    made = Tokenizer(
        models.WordPiece({piece: index for index, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=made, **dict(zip(names, special, strict=True)))


def vit_gpt2(seed: int = 0) -> tuple[Any, Any]:
    """ViT and GPT-2, of different widths, and the tokenizer."""
    from transformers import GPT2Config, ViTConfig

    tokenizer = byte_pairs()
    end = tokenizer.eos_token_id
    encoder = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIDE,
        patch_size=8,
        initializer_range=0.5,
    )
    decoder = GPT2Config(
        vocab_size=len(tokenizer) + 3,
        n_positions=40,
        n_embd=24,
        n_layer=2,
        n_head=2,
        bos_token_id=end,
        eos_token_id=end,
        initializer_range=0.6,
    )
    return new_model(encoder, decoder, seed, decoder_start_token_id=end, eos_token_id=end, pad_token_id=end), tokenizer


def swin_bert(seed: int = 0) -> tuple[Any, Any]:
    """Swin and BERT, of one width, and the tokenizer."""
    from transformers import BertConfig, SwinConfig

    tokenizer = word_pieces()
    encoder = SwinConfig(
        image_size=SIDE,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[1, 2],
        window_size=4,
        initializer_range=0.5,
    )
    decoder = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=1.5,
    )
    ids = {
        "decoder_start_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return new_model(encoder, decoder, seed, **ids), tokenizer


MODELS = {"vit-gpt2": vit_gpt2, "swin-bert": swin_bert}


def new_model(encoder: Any, decoder: Any, seed: int, **ids: int) -> Any:
    """A model with random weights, of the configurations of its parts and the ids of its tokens."""
    from transformers import GenerationConfig, VisionEncoderDecoderConfig, VisionEncoderDecoderModel

    torch.manual_seed(seed)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    for name, value in ids.items():
        setattr(config, name, value)
    model = VisionEncoderDecoderModel(config=config).eval()
    model.generation_config = GenerationConfig(max_length=24, num_beams=3, early_stopping=True, **ids)
    return model


def processor(**changes: Any) -> Any:
    """ViT's image processor."""
    from transformers import ViTImageProcessor

    size = {"height": SIDE, "width": SIDE}
    return ViTImageProcessor(**{"size": size, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]} | changes)


def write_folder(folder: Path, kind: str = "vit-gpt2", seed: int = 0, **preparation: Any) -> Path:
    """A folder of a model with random weights."""
    model, tokenizer = MODELS[kind](seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor(**preparation).save_pretrained(folder)
    return folder


def without(folder: Path, names: Sequence[str]) -> Path:
    """The folder without some of its files."""
    for name in names:
        (folder / name).unlink()
    return folder
