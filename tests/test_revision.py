"""Reports that are consistent and say what was found: known answers, properties, a likelihood computed word by word."""

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
from core.decoders.revision import log_probabilities, revised
from core.decoders.search import GenerateConfig, generate, generate_together
from core.labels.repeats import clashes, content
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
MORE = ["the right lung is clear.", "surgical clips are present, no pneumothorax."]
WORDS = sorted(
    {word for text in (*OTHERS, *MORE, *(each for of in BANK.values() for each in of)) for word in tokenize(text)}
)
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS))
SAYS = GenerateConfig(say_found=True, finding_sentences=BANK)
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


def completed(
    name: str, found: Sequence[str], sentences: Sequence[str], wanted: GenerateConfig = SAYS
) -> list[str] | None:
    decoder = decoder_of(name)
    with torch.inference_mode():
        memory = decoder.encode(seen(found))
        whole = revised(decoder, memory, ids_of(decoder, sentences), wanted, VOCABULARY)
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
    says = GenerateConfig(say_found=True, finding_sentences=options)
    for seed in range(8):
        decoder, before = decoder_of(name, seed), "there is a nodule in the left lung."
        with torch.inference_mode():
            memory = decoder.encode(seen(["Lung Opacity"], seed))
            whole = revised(decoder, memory, ids_of(decoder, [before]), says, VOCABULARY)
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
        one = replace(SAYS, finding_sentences={"Cardiomegaly": ["huge heart.", "mild cardiomegaly."]})
        whole = revised(decoder, memory, ids, one, VOCABULARY)
        assert whole is not None
        assert sentences_of(whole.ids)[1] == "mild cardiomegaly."
        for nothing in (["huge heart."], [""], []):
            none = replace(SAYS, finding_sentences={"Cardiomegaly": nothing})
            assert revised(decoder, memory, ids, none, VOCABULARY) is None


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


CONSISTENT = GenerateConfig(consistent=True)
OPACITY, EFFUSION = "there is a left base opacity.", "small left pleural effusion."


def memory_of(decoder: Decoder, found: Sequence[str] | None) -> Memory:
    memory = decoder.encode(seen(found or []))
    return memory if found is not None else replace(memory, found=None)


def consistent(name: str, found: Sequence[str] | None, sentences: Sequence[str]) -> list[str]:
    """The sentences that stay."""
    decoder = decoder_of(name)
    ids = ids_of(decoder, sentences)
    with torch.inference_mode():
        whole = revised(decoder, memory_of(decoder, found), ids, CONSISTENT, VOCABULARY)
    if whole is None:
        return list(sentences)
    assert not whole.added
    assert [ids[place] for place in whole.kept] == list(whole.ids)
    return sentences_of(whole.ids)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("found", "sentences", "stays"),
    [
        # What was found decides; where nothing was read first, the claim stays.
        (["Pleural Effusion"], [EFFUSION, OTHERS[4]], [0]),
        (["Cardiomegaly"], [EFFUSION, OTHERS[4]], [1]),
        ([], [EFFUSION, OTHERS[4]], [1]),
        (None, [EFFUSION, OTHERS[4]], [0]),
        (["Pleural Effusion"], [OTHERS[4], EFFUSION], [1]),
        ([], ["mild cardiomegaly.", "the heart is normal in size.", OTHERS[7]], [1, 2]),
        # The labeler reads nothing in clear lungs, and they are none with an opacity.
        (["Lung Opacity"], [OPACITY, "the lungs are clear.", OTHERS[7]], [0, 2]),
        ([], [OPACITY, "the lungs are clear.", OTHERS[7]], [1, 2]),
        (["Lung Opacity"], [OPACITY, "the lungs are otherwise clear."], [0, 1]),
        (["Pleural Effusion"], [EFFUSION, "the lungs are clear."], [0, 1]),
        # Another side is another matter.
        (["Lung Opacity"], [OPACITY, "the right lung is clear."], [0, 1]),
        (["Lung Opacity"], [OPACITY, "the left lung is clear."], [0]),
        (["Lung Opacity"], ["vague opacity in the midlung.", "the right lung is clear."], [0]),
        # Of two denials the one that says less goes, wherever nothing else is said with it.
        ([], ["no pleural effusion.", OTHERS[7], OTHERS[4]], [1, 2]),
        ([], [OTHERS[4], OTHERS[7], "no pneumothorax."], [0, 1, 2]),
        ([], ["surgical clips are present, no pneumothorax.", OTHERS[4]], [0, 1]),
        # One claim with two denials, of which one is right.
        (["Lung Opacity"], [f"{OPACITY[:-1]}, pleural effusion.", OTHERS[4], "the lungs are clear."], [1]),
    ],
)
def test_of_sentences_that_contradict_each_other_one_stays(
    name: str, found: list[str] | None, sentences: list[str], stays: list[int]
) -> None:
    assert consistent(name, found, sentences) == [sentences[place] for place in stays]


CLAIMS = [EFFUSION, OPACITY, "mild cardiomegaly.", "there is a small right pleural effusion.", *OTHERS]


@given(
    name=st.sampled_from(NAMES),
    found=st.none() | st.sets(st.sampled_from([*BANK, "Lung Lesion"])),
    sentences=st.lists(st.sampled_from([*CLAIMS, "the right lung is clear."]), min_size=1, max_size=6),
)
@settings(deadline=None, max_examples=100)
def test_a_consistent_report_has_sentences_of_before_in_their_order_and_no_contradiction(
    name: str, found: set[str] | None, sentences: list[str]
) -> None:
    known = None if found is None else sorted(found)
    after = consistent(name, known, sentences)
    rest = iter(sentences)
    assert all(each in rest for each in after)  # in their order
    assert after
    read = [content(tuple(tokenize(each))) for each in after]
    assert not any(clashes(one, other) for one in read for other in read)
    assert consistent(name, known, after) == after
    lost = [each for each in sentences if each not in after]
    if known is None:  # no claim is ever lost
        assert not any(content(tuple(tokenize(each))).asserted for each in lost)
    for each in lost:  # nothing goes that all others agree with, and that only one sentence says
        words = content(tuple(tokenize(each)))
        others = [content(tuple(tokenize(other))) for other in sentences if other != each]
        again = any(words.denied <= other.denied for other in others)
        assert again or any(clashes(words, other) or clashes(other, words) for other in others)


@pytest.mark.parametrize("name", NAMES)
def test_a_report_is_made_consistent_before_it_says_what_was_found(name: str) -> None:
    """The claim that the image does not bear out goes, and what was found in the same sentence is said again."""
    both = replace(SAYS, consistent=True)
    written = ["left base opacity, small left pleural effusion.", "no pneumothorax or pleural effusion."]
    whole = completed(name, ["Lung Opacity"], written, both)
    assert whole is not None
    assert whole[0] in BANK["Lung Opacity"]
    assert whole[1:] == [written[1]]
    decoder = decoder_of(name)
    with torch.inference_mode():
        memory = decoder.encode(seen(["Lung Opacity"]))
        report = revised(decoder, memory, ids_of(decoder, [OTHERS[0], OTHERS[5], *written]), both, VOCABULARY)
    assert report is not None
    assert [sentences_of(each) for each in report.contradicted] == [[OTHERS[5]], [written[0]]]
    assert completed(name, ["Pleural Effusion"], ["the heart is normal in size.", "no pleural effusion."], both) is None


@pytest.mark.parametrize("name", NAMES)
def test_words_that_stay_are_as_likely_as_they_were(name: str) -> None:
    """A decoder that wrote a contradiction: attention and likelihood are those of its own words."""
    decoder = writes(name, 0, [OTHERS[0], OTHERS[5], OTHERS[7]])
    plain = GenerateConfig(beam_size=1, max_words=60)
    picture = seen(["Lung Lesion"])
    before, after = (
        generate(decoder, picture, each, VOCABULARY, return_attention=True)[0]
        for each in (plain, replace(plain, consistent=True))
    )
    assert sentences_of(before.ids) == [OTHERS[0], OTHERS[5], OTHERS[7]]
    assert sentences_of(after.ids) == [OTHERS[0], OTHERS[7]]
    assert after.finished
    assert after.ids[-1] == END
    assert [sentences_of(each) for each in after.contradicted] == [[OTHERS[5]]]
    assert not after.added
    gone = range(len(ids_of(decoder, [OTHERS[0]])), len(ids_of(decoder, [OTHERS[0], OTHERS[5]])))
    kept = [place for place in range(len(before.ids)) if place not in gone]
    assert before.attention is not None
    assert after.attention is not None
    torch.testing.assert_close(after.attention, before.attention[kept])
    with torch.inference_mode():
        likely = log_probabilities(decoder, decoder.encode(picture), [before.ids])[0]
    assert after.log_probability == pytest.approx(float(likely[kept].sum()), abs=1e-3)


def revised_sum(decoder: Decoder, picture: VisualTokens, ids: Sequence[int]) -> float:
    """The log-probability of a report's ids, as it is computed for those with sentences put in."""
    with torch.inference_mode():
        return float(log_probabilities(decoder, decoder.encode(picture), [ids])[0].sum())


def writes(name: str, seed: int, sentences: Sequence[str] = ()) -> Decoder:
    """A decoder that writes some sentences, or of a nodule and then one of two denials, whatever it sees."""
    decoder = decoder_of(name, seed)
    ids = ids_of(decoder, sentences or [OTHERS[0], OTHERS[3 + seed % 2]])
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
        assert before.log_probability == pytest.approx(float(revised_sum(decoder, pictures[0], before.ids)), abs=1e-3)
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


def test_a_card_shows_what_contradicted_the_rest() -> None:
    decoder = writes("transformer", 0, [OTHERS[0], OTHERS[5], OTHERS[7]])
    (hypothesis,) = generate(decoder, seen(["Lung Lesion"]), GenerateConfig(beam_size=1, consistent=True), VOCABULARY)
    with torch.inference_mode():
        report = to_report(VOCABULARY, hypothesis, decoder.encode(seen(["Lung Lesion"])))
    assert report.contradicted == ("The lungs are clear.",)
    assert "clear" not in report.text
    assert (
        card("openi-fve-m2", "FVE + M2", report, label_report(report.text), None)["contradicted"]
        == OTHERS[5].capitalize()
    )


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
