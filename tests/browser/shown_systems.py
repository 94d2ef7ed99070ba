"""Other people's systems for pictures of the pages: a model of transformers, a file of reports, a program.

Each is what it says: the model learns the demo's phantoms here, in minutes; the file has the reports of the nearest
training films; the program is `cxr-lens rexrank` with a pair of the demo.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd

from core.bundles.hugging_face import import_folder
from core.bundles.library import BundleLibrary
from core.evaluation.own import Asked, ask, evaluate_source
from core.labels.rules import label_report
from core.observations import LabelState
from core.studies.source import Source
from core.studies.sources import open_source
from core.systems import added
from core.systems.program import read_command
from dashboard import settings
from dashboard.services import sources
from tests.app_pages import linked_bundles
from tests.hugging_face_models import new_model, processor

SPEC = "phantom:400:3"
MODEL, FILE, PROGRAM = THREE = ("vit-gpt2", "Nearest film", "Their program")
PAIRS = ("phantom-fve-m2", "phantom-ccve-m2", "phantom-dve-transformer")
PAGES = ("read-systems", "read-place-systems", "cases-systems", "results-systems", "review-systems", "reading-systems")
STEPS, SIDE, LONGEST = 1_500, 96, 120
KEPT = settings.REPOSITORY / "build" / "vit-gpt2"
"""Where the model is kept, once trained; delete it to train it anew."""
_LOG = logging.getLogger(__name__)


def prepare(home: Path) -> dict[str, str]:
    """Folders for a server on which the three stand beside pairs, all evaluated: the environment that names them."""
    environment = {
        "CXR_CACHE": str(home / "cache"),
        "CXR_EVALUATIONS": str(home / "evaluations"),
        "CXR_SYSTEMS": str(home / "systems"),
        "CXR_BUNDLES": str(linked_bundles(home / "bundles", without=("openi-results.json",))),
        "CXR_SOURCES": SPEC,
    }
    os.environ.update(environment)
    made = KEPT if (KEPT / "config.json").is_file() else train(KEPT)
    import_folder(
        made,
        MODEL,
        home / "bundles",
        title="ViT + GPT-2",
        trained_on="the demo's phantoms, 1,500 steps",
        licence="MIT",
    )
    source = open_source(SPEC)
    added.add_file(FILE, nearest(home / "nearest.csv", source))
    words = [
        sys.executable,
        "-m",
        "training.cli",
        "rexrank",
        "{input}",
        "{output}",
        "{images}",
        "--bundle",
        "phantom-dve-m2",
    ]
    added.add_program(PROGRAM, read_command(shlex.join(words), Path.cwd()))
    return environment


def evaluated(home: Path) -> Asked:
    """The pairs, the model, the file and the program, scored on the source."""
    library = BundleLibrary(home / "bundles")
    cards = [library.card(name) for name in (*PAIRS, MODEL)]
    asked = ask(open_source(SPEC), cards, home / "bundles", "test", [added.system(FILE), added.system(PROGRAM)])
    evaluate_source(asked, lambda share, what: _LOG.info("%.0f %% %s", 100 * share, what))
    return asked


def pages(made: Asked) -> dict[str, str]:
    """Address of each page."""
    name = sources.with_key(made.source)
    rows = [json.loads(line) for line in (made.folder / "reports.jsonl").read_text(encoding="utf-8").splitlines()]
    findings = ("Pleural Effusion", "Cardiomegaly", "Pneumothorax", "Lung Lesion")
    said = {row["study_id"]: label_report(row[PROGRAM]).states for row in rows}
    asked = ((each, found) for found in findings for each in said if said[each][found] is LabelState.POSITIVE)
    study, finding = next(asked)
    read = {
        "source": name,
        "study": study,
        "family": [f"Models for {title}" for title in ("synthetic X-rays", f"X-rays elsewhere ({MODEL})")],
        "beside_pairs": [FILE, PROGRAM],
        "fve": "M2",
        **dict.fromkeys(("dve", "cve", "ccve"), ""),
    }
    query = f"?{urlencode(read, doseq=True)}"
    return {
        "read-systems": query,
        "read-place-systems": f"{query}&{urlencode({'asked': PROGRAM, 'mention': finding})}",
        "cases-systems": f"cases?source={name}&case_order=most+errors",
        "results-systems": f"results?source={name}",
    }


def train(folder: Path) -> Path:
    """Train a small ViT with a GPT-2 on the demo's phantoms, as `save_pretrained` writes it."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, PreTrainedTokenizerFast, ViTConfig

    source = open_source("phantom:4000:0")
    ids = source.ids("train")[:2_000]
    texts = [source.study(each).findings for each in ids]
    pieces = ByteLevelBPETokenizer()
    end = "<|endoftext|>"
    pieces.train_from_iterator(texts, vocab_size=600, special_tokens=[end])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces._tokenizer, bos_token=end, eos_token=end, unk_token=end, pad_token=end
    )
    encoder = ViTConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        image_size=SIDE,
        patch_size=12,
    )
    decoder = GPT2Config(
        vocab_size=len(tokenizer), n_positions=LONGEST, n_embd=128, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    model = new_model(encoder, decoder, 0, decoder_start_token_id=0, eos_token_id=0, pad_token_id=0).train()
    images = torch.stack([torch.from_numpy(source.image(each, SIDE)) for each in ids])[:, None].expand(-1, 3, -1, -1)
    labels = torch.full((len(ids), LONGEST), -100)
    for row, text in zip(labels, texts, strict=True):
        read = [*tokenizer(" " + text).input_ids, 0][:LONGEST]
        row[: len(read)] = torch.tensor(read)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, STEPS)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        some = torch.randint(len(ids), (24,), generator=generator)
        used = int((labels[some] != -100).sum(1).max())
        loss = model(pixel_values=(images[some] - 0.5) / 0.5, labels=labels[some][:, :used]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            _LOG.info("step %d of %d: loss %.3f", step + 1, STEPS, loss.item())
    model.generation_config.update(max_length=LONGEST, num_beams=2)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size, half = {"height": SIDE, "width": SIDE}, [0.5] * 3
    processor(size=size, image_mean=half, image_std=half).save_pretrained(folder)
    return folder


def nearest(path: Path, source: Source) -> Path:
    """A file of reports: for each study that of the training film of the demo whose 32 pixels are nearest."""
    demo = open_source("phantom:4000:0")
    known = demo.ids("train")[:1_000]
    films = np.stack([demo.image(each, 32).ravel() for each in known])
    rows = []
    for study in source.ids("test"):
        away = np.square(films - source.image(study, 32).ravel()).sum(1)
        rows.append((study, demo.study(known[int(away.argmin())]).findings))
    pd.DataFrame(rows, columns=["study_id", "report"]).to_csv(path, index=False)
    return path
