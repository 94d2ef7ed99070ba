"""Reports that say what was found: known answers, properties, and a likelihood computed word by word."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.bundles.pair import to_report
from core.decoders import Decoder, Memory, build_decoder
from core.decoders.cnn_rnn_rnn import HierarchicalDecoder
from core.decoders.search import GenerateConfig, generate, generate_together
from core.decoders.unsaid import log_probabilities, with_unsaid
from core.labels.rules import label_report
from core.observations import ASSERTED, OBSERVATIONS, LabelState
from core.text import END, SENTENCE_END, SPECIAL_TOKENS, START, Vocabulary, split_sentences, to_text, tokenize
from core.types import VisualTokens
from dashboard.components.report import card
from tests.test_findings_first import WIDTH, visual
from training.finding_sentences import plain_sentences

pytestmark = pytest.mark.numeric

BANK = {
    "Cardiomegaly": ["mild cardiomegaly.", "the heart is enlarged."],
    "Lung Opacity": ["left base opacity.", "there is a left base opacity.", "vague opacity in the right midlung."],
    "Pleural Effusion": ["small left pleural effusion.", "there is a small right pleural effusion."],
}
OTHERS = [
    "there is a nodule in the left lung.",
    "surgical clips are present.",
    "the heart is normal in size.",
    "no pleural effusion.",
    "no pneumothorax or pleural effusion.",
    "the lungs are clear.",
    "the lungs are otherwise clear.",
    "the bones are intact.",
]
WORDS = sorted({word for text in (*OTHERS, *(each for of in BANK.values() for each in of)) for word in tokenize(text)})
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS))
NAMES = ["transformer", "m2", "cnn_rnn_rnn"]


def decoder_of(name: str, seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    size = len(VOCABULARY)
    return build_decoder(name, "tiny", token_width=WIDTH, vocabulary_size=size, findings_first=True).eval()


def seen(found: Sequence[str], seed: int = 0) -> VisualTokens:
    given_findings = torch.tensor([[float(name in found) for name in OBSERVATIONS]])
    return replace(visual(1, seed), findings=given_findings)


def ids_of(decoder: Decoder, sentences: Sequence[str]) -> list[int]:
    ids: list[int] = []
    for sentence in sentences:
        ids += [*VOCABULARY.ids(tokenize(sentence)), *([SENTENCE_END] if decoder.sentences else [])]
    return ids


def sentences_of(ids: Sequence[int]) -> list[str]:
    return [to_text(each).lower() for each in split_sentences(VOCABULARY.decode(ids))]


def completed(name: str, found: Sequence[str], sentences: Sequence[str]) -> list[str] | None:
    decoder = decoder_of(name)
    with torch.inference_mode():
        memory = decoder.encode(seen(found))
        whole = with_unsaid(decoder, memory, ids_of(decoder, sentences), BANK, VOCABULARY)
    if whole is None:
        return None
    assert (whole.ids[-1] == SENTENCE_END) is decoder.sentences
    return sentences_of(whole.ids)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("found", "sentences"),
    [
        (["Cardiomegaly"], ["the heart is normal in size.", "the lungs are clear."]),  # called normal
        (["Cardiomegaly"], ["surgical clips are present.", "the lungs are clear."]),  # a device is no finding
        (["Lung Lesion"], ["the heart is enlarged.", "the lungs are clear."]),  # no sentence to say it with
        (["Cardiomegaly"], ["the heart is enlarged.", "no pleural effusion."]),  # said
        ([], ["the heart is enlarged.", "no pleural effusion."]),  # nothing found
        (["Cardiomegaly"], []),  # nothing written
    ],
)
def test_reports_that_leave_nothing_out_or_call_the_film_normal_stay(
    name: str, found: list[str], sentences: list[str]
) -> None:
    assert completed(name, found, sentences) is None


@pytest.mark.parametrize("name", NAMES)
def test_what_was_found_stands_after_the_reports_own_findings_and_is_denied_nowhere(name: str) -> None:
    written = [
        "the heart is normal in size.",
        "there is a nodule in the left lung.",
        "no pneumothorax or pleural effusion.",
        "the lungs are clear.",
        "the bones are intact.",
    ]
    whole = completed(name, ["Pleural Effusion", "Cardiomegaly"], written)
    assert whole is not None
    assert whole[0] == written[1]
    assert whole[1] in BANK["Cardiomegaly"]
    assert whole[2] in BANK["Pleural Effusion"]
    assert whole[3:] == ["the lungs are clear.", "the bones are intact."]
    whole = completed(name, ["Lung Opacity"], [*written, "the lungs are otherwise clear."])
    assert whole is not None
    assert "the lungs are clear." not in whole
    assert whole[-1] == "the lungs are otherwise clear."
    assert {written[0], written[2]} <= set(whole)


def never_stops(decoder: Decoder) -> Decoder:
    """With a planner that never ends the report of itself; the others have none."""
    if isinstance(decoder, HierarchicalDecoder):
        decoder = deepcopy(decoder)
        torch.nn.init.zeros_(decoder.to_stop.weight)
        torch.nn.init.constant_(decoder.to_stop.bias, -100.0)
    return decoder


def likelihood(decoder: Decoder, memory: Memory, before: Sequence[int], words: Sequence[int]) -> float:
    """Of ids after others, summed word by word, each from its own prefix, as `Decoder.predict` gives it."""
    ids, total = [START, *before], 0.0
    for word in words:
        total += float(decoder.predict(memory, torch.tensor([ids])).log_softmax(1)[0, word])
        ids.append(word)
    return total


@pytest.mark.parametrize("name", NAMES)
def test_the_sentence_is_the_likeliest_after_those_before_it(name: str) -> None:
    same_length = ["vague opacity in the midlung.", "small opacity in the left.", "an opacity there is seen."]
    options, chosen = {"Lung Opacity": [each for each in same_length if set(tokenize(each)) <= set(WORDS)]}, set()
    assert len(options["Lung Opacity"]) > 1
    for seed in range(8):
        decoder, before = decoder_of(name, seed), "there is a nodule in the left lung."
        with torch.inference_mode():
            memory = decoder.encode(seen(["Lung Opacity"], seed))
            whole = with_unsaid(decoder, memory, ids_of(decoder, [before]), options, VOCABULARY)
            written, goes_on = ids_of(decoder, [before]), never_stops(decoder)
            likely = {
                text: likelihood(goes_on, memory, written, ids_of(decoder, [text])) for text in options["Lung Opacity"]
            }
        assert whole is not None
        assert sentences_of(whole.ids)[1] == max(likely, key=likely.__getitem__)
        chosen.add(sentences_of(whole.ids)[1])
    assert len(chosen) > 1  # or a choice that is always the same would pass


@pytest.mark.parametrize("name", NAMES)
def test_sentences_with_words_that_a_decoder_lacks_are_never_written(name: str) -> None:
    decoder = decoder_of(name)
    ids = ids_of(decoder, ["there is a nodule in the left lung."])
    with torch.inference_mode():
        memory = decoder.encode(seen(["Cardiomegaly"]))
        one = {"Cardiomegaly": ["huge heart.", "mild cardiomegaly."]}
        whole = with_unsaid(decoder, memory, ids, one, VOCABULARY)
        assert whole is not None
        assert sentences_of(whole.ids)[1] == "mild cardiomegaly."
        for nothing in (["huge heart."], [""], []):
            assert with_unsaid(decoder, memory, ids, {"Cardiomegaly": nothing}, VOCABULARY) is None


@given(
    name=st.sampled_from(NAMES),
    found=st.sets(st.sampled_from([*BANK, "Lung Lesion", "No Finding"])),
    sentences=st.lists(st.sampled_from([*OTHERS, *(of[0] for of in BANK.values())]), max_size=6),
)
@settings(deadline=None, max_examples=60)
def test_nothing_that_was_found_is_left_out_and_no_finding_is_lost(
    name: str, found: set[str], sentences: list[str]
) -> None:
    before = label_report(" ".join(sentences)).states
    whole = completed(name, sorted(found), sentences)
    if whole is None:
        return
    after = label_report(" ".join(whole)).states
    assert all(after[each] is LabelState.POSITIVE for each in found & set(BANK))
    asserted = {each for each, state in before.items() if state in ASSERTED}
    assert asserted <= {each for each, state in after.items() if state in ASSERTED}
    assert {each for each, state in after.items() if state in ASSERTED} <= asserted | found
    assert completed(name, sorted(found), whole) is None  # it says all now


def unsaid_sum(decoder: Decoder, picture: VisualTokens, ids: Sequence[int]) -> float:
    """The log-probability of a report's ids, as it is computed for those with sentences put in."""
    with torch.inference_mode():
        return float(log_probabilities(decoder, decoder.encode(picture), [ids])[0].sum())


def writes(name: str, seed: int) -> Decoder:
    """A decoder that writes of a nodule, and then one of two denials, whatever it sees."""
    decoder = decoder_of(name, seed)
    ids = ids_of(decoder, ["there is a nodule in the left lung.", OTHERS[3 + seed % 2]])
    target = torch.tensor([[START, *ids, END]]).expand(3, -1)
    shown = [seen([]), seen(["Pleural Effusion"]), seen(["Pleural Effusion", "Lung Lesion"])]
    seen_all = replace(
        shown[0],
        tokens=torch.cat([each.tokens for each in shown]),
        findings=torch.cat([each.findings for each in shown if each.findings is not None]),
    )
    optimizer = torch.optim.Adam(decoder.parameters(), 2e-3)
    loss = torch.tensor(1.0)
    while loss > 0.02:  # without dropout: it learns one report by heart
        output = decoder(seen_all, target[:, :-1])
        loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), target[:, 1:].flatten())
        if output.stop_logits is not None:
            stops = torch.nn.functional.binary_cross_entropy_with_logits
            loss = loss + stops(output.stop_logits, output.stop_targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return decoder


@pytest.mark.parametrize("name", NAMES)
def test_a_search_says_what_was_found_alone_and_together_and_tells_its_likelihood(name: str) -> None:
    decoders = [writes(name, seed) for seed in (0, 1)]
    plain = GenerateConfig(beam_size=1, max_words=60)
    says = replace(plain, say_found=True, finding_sentences=BANK)
    pictures = [seen(["Pleural Effusion"]), seen([])]
    for decoder in decoders:
        before, untouched = (generate(decoder, each, plain, VOCABULARY)[0] for each in pictures)
        assert sentences_of(before.ids)[0] == "there is a nodule in the left lung."
        hypothesis, same = (generate(decoder, each, says, VOCABULARY, return_attention=True)[0] for each in pictures)
        assert hypothesis.added == ("Pleural Effusion",)
        assert (
            label_report(to_text(VOCABULARY.decode(hypothesis.ids))).states["Pleural Effusion"] is LabelState.POSITIVE
        )
        assert hypothesis.attention is not None
        assert len(hypothesis.attention) == len(hypothesis.ids)
        with torch.inference_mode():
            counted = hypothesis.ids[:-1] if decoder.sentences else hypothesis.ids  # a planner's END costs nothing
            goes_on = never_stops(decoder)
            total = likelihood(goes_on, goes_on.encode(pictures[0]), (), counted)
        assert hypothesis.log_probability == pytest.approx(total, abs=1e-3)
        assert before.log_probability == pytest.approx(float(unsaid_sum(decoder, pictures[0], before.ids)), abs=1e-3)
        assert (same.ids, same.added) == (untouched.ids, ())
        off = replace(says, say_found=False)
        assert generate(decoder, pictures[0], off, VOCABULARY)[0].ids == before.ids
        long = {"Pleural Effusion": ["there is a small right pleural effusion."]}
        short = replace(says, max_words=len(before.ids), finding_sentences=long)  # no room for another sentence
        assert generate(decoder, pictures[0], short, VOCABULARY)[0].ids == before.ids
    with torch.inference_mode():
        memories = [decoder.encode(pictures[0]) for decoder in decoders]
    together = generate_together(decoders, memories, says, VOCABULARY)
    alone = [generate(decoder, pictures[0], says, VOCABULARY)[0] for decoder in decoders]
    assert [(each.ids, each.added) for each in together] == [(each.ids, each.added) for each in alone]


def test_a_card_tells_which_sentences_were_added() -> None:
    decoder = writes("transformer", 0)
    says = GenerateConfig(beam_size=1, max_words=60, say_found=True, finding_sentences=BANK)
    (hypothesis,) = generate(decoder, seen(["Pleural Effusion", "Lung Lesion"]), says, VOCABULARY)
    with torch.inference_mode():
        memory = decoder.encode(seen(["Pleural Effusion", "Lung Lesion"]))
    assert memory.found is not None
    report = to_report(VOCABULARY, hypothesis, memory, found=memory.found[0])
    assert report.added == ("Pleural Effusion",)
    shown = card("openi-fve-m2", "FVE + M2", report, label_report(report.text), None)["found"]
    assert [(each["name"], each["written"], each["added"]) for each in shown] == [
        ("Lung Lesion", True, False),
        ("Pleural Effusion", True, True),
    ]


def test_plain_sentences_are_readers_own_about_one_finding_of_this_film() -> None:
    """Each of the others breaks one rule."""
    plain = [
        *("mild cardiomegaly.", "the heart is enlarged.", "cardiomegaly is noted.", "the heart is large."),
        "moderate cardiomegaly.",
    ]
    others = [
        "cardiomegaly.",  # one word
        "stable cardiomegaly.",  # an earlier image
        "mild cardiomegaly measuring 12 cm.",
        "xxxx enlarged heart is seen.",
        "mild cardiomegaly and left pleural effusion.",
        "mild cardiomegaly without pleural effusion.",
        "possible mild cardiomegaly.",
        "no cardiomegaly is seen.",
        "the heart is clear and enlarged.",
        "the heart is seen to be quite enlarged in its long axis here.",
        "surgical clips are present.",
        "mild enlarged heart",  # no full stop
        "the cardiac silhouette is enlarged.",  # words that the vocabulary lacks
        "left base opacity.",  # too few of its observation
    ]
    texts = [*[text for text in plain for _ in range(2)], plain[1], *others]
    vocabulary = Vocabulary.build([text for text in texts if "silhouette" not in text], 1)
    found = plain_sentences(texts, vocabulary)
    assert list(found) == ["Cardiomegaly"]
    ranked = [plain[1], *sorted((plain[0], *plain[2:]), key=lambda text: (len(text), text))]
    assert [text.lower() for text in found["Cardiomegaly"]] == ranked
