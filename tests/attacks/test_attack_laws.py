"""What holds for every registered attack, and values of single ones against hand-computed ones."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support.tiny import make
from unsee.attacks import ATTACKS, VARIANT, AttackerData, Subject
from unsee.attacks.adaptive import Adaptive
from unsee.attacks.answer_prefix import AnswerPrefix
from unsee.attacks.cross_modal import CrossModal
from unsee.attacks.figstep import FigStep, render_text
from unsee.attacks.membership import Membership, auc, mean_lowest, token_scores, tpr_at_fpr
from unsee.attacks.perturb import Perturb
from unsee.attacks.probe import Probe
from unsee.attacks.quantize import Quantize, round_to_nearest
from unsee.attacks.relearn import Relearn
from unsee.attacks.rephrase_image import RephraseImage
from unsee.errors import ConfigError, DataError, ModelError
from unsee.evaluation.generation import answer_nlls, generate
from unsee.families import FAMILIES
from unsee.losses import IGNORE, nll
from unsee.models.vlm import VLM
from unsee.runs.attack_outcomes import ScoredAnswer, compare_answers, gives_true_answer
from unsee.runs.preflight import check_attack
from unsee.types import Data, Picture, Sample

NAMES = ATTACKS.names()
# Families whose processors make one normalised grid of a picture.
GRIDS = ("llava", "gemma3", "paligemma")
# Small enough for a test, and more than nothing.
SMALL: dict[str, dict[str, Any]] = {
    "relearn": {"steps": 2, "share": 1.0, "lr": 1e-3},
    "adaptive": {"steps": 2, "share": 1.0, "batch_size": 4},
    "perturb": {"steps": 3, "epsilon": 6, "step": 3.0, "batch_size": 4},
    "membership": {"most": 6},
}


@pytest.fixture
def subject(tiny: VLM, data: Data) -> Subject:
    """The tiny model, asked about one picture of everyone, with an attacker who has the others."""

    def held(samples: Any, out: bool) -> list[Sample]:
        shown = [s for s in samples if s.picture is not None]
        return [s for s in shown if s.id.split("/")[1].startswith("2") is out]

    outside = [
        replace(s, id=f"x/{s.id}", concept="Di Berg", answer=s.answer.replace("Ada", "Di"))
        for s in data.forget[:9]
    ]
    return Subject(
        tiny,
        {"forget_holdout": held(data.forget, True), "retain_holdout": held(data.retain, True)},
        held(data.forget, False),
        held(data.retain, False),
        outside,
    )


def small(name: str) -> Any:
    return ATTACKS.get(name)(**SMALL.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_no_budget_is_the_identity(name: str, subject: Subject) -> None:
    attack = ATTACKS.get(name)(**ATTACKS.get(name).zero_budget)
    left = attack.apply(subject)
    assert left.vlm.hash() == subject.vlm.hash()
    assert left.samples == subject.samples
    if attack.reads:
        assert attack.readings(subject) == []


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_as_they_are_and_a_rerun_matches(name: str, subject: Subject) -> None:
    weights = subject.vlm.hash()
    wanted = [p.requires_grad for p in subject.vlm.model.parameters()]
    samples = {split: list(some) for split, some in subject.samples.items()}
    attack = small(name)

    def outcome() -> Any:
        left = attack.apply(subject)
        read = attack.readings(subject) if attack.reads else []
        return left.vlm.hash(), left.samples, read

    first = outcome()
    # A resumed run has drawn something else before.
    torch.manual_seed(4321)
    np.random.seed(4321)
    assert outcome() == first
    assert subject.vlm.hash() == weights
    assert [p.requires_grad for p in subject.vlm.model.parameters()] == wanted
    assert all(p.grad is None for p in subject.vlm.model.parameters())
    assert {split: list(some) for split, some in subject.samples.items()} == samples
    # With a budget it does something.
    assert first[2] or (first[0], first[1]) != (weights, subject.samples)


@pytest.mark.parametrize("name", NAMES)
def test_what_one_leaves_another_takes(name: str, subject: Subject) -> None:
    left = Quantize().apply(subject)
    attack = small(name)
    twice = attack.apply(left)
    assert twice.vlm.hash() != subject.vlm.hash()
    if attack.reads:
        assert attack.readings(left)
    else:
        assert generate(twice.vlm, list(twice.samples["forget_holdout"])[:2], max_new_tokens=2)


def test_a_quantized_row_by_hand() -> None:
    rows = torch.tensor([[7.0, -3.4, 0.4, 1.6], [0.0, 0.0, 0.0, 0.0], [0.14, 0.05, -0.14, 0.01]])
    # 4 bits: steps of 7/7 = 1 and .14/7 = .02; -3.4 goes to -3, .05 to .04 (2.5 rounds to even).
    expected = [[7.0, -3.0, 0.0, 2.0], [0.0] * 4, [0.14, 0.04, -0.14, 0.0]]
    assert torch.allclose(round_to_nearest(rows, 4), torch.tensor(expected), atol=1e-6)
    # 8 bits: step 7/127.
    assert float(round_to_nearest(rows, 8)[0, 1]) == pytest.approx(round(-3.4 * 127 / 7) * 7 / 127)


def test_quantizing_leaves_vectors_and_the_other_part(subject: Subject) -> None:
    left = Quantize(bits=4, modules="visual").apply(subject).vlm
    assert left.hash("language") == subject.vlm.hash("language")
    for name, weight in left.parameters("visual").items():
        before = subject.vlm.parameters("visual")[name]
        if weight.dim() < 2:
            assert torch.equal(weight, before)
        else:
            assert all(len(row.unique()) <= 15 for row in weight.flatten(1))
    with pytest.raises(ConfigError, match="has no bits=4"):
        Quantize(bits=4, scheme="torchao").apply(subject)


@pytest.mark.parametrize(
    ("scheme", "bits"), [("torchao", 8), ("bitsandbytes", 8), ("bitsandbytes", 4)]
)
def test_a_library_stores_weights_or_says_that_it_is_missing(
    scheme: Any, bits: int, subject: Subject
) -> None:
    attack = Quantize(bits=bits, scheme=scheme)
    try:
        __import__(scheme)
    except ImportError:
        with pytest.raises(ConfigError, match="pip install 'unsee\\[quantized\\]'"):
            attack.apply(subject)
        return
    for name, weight in attack.apply(subject).vlm.parameters().items():
        before = subject.vlm.parameters()[name]
        bound = before.abs().max() * (0.3 if bits == 4 else 0.02)
        assert float((weight - before).detach().abs().max()) <= float(bound.detach())


def test_min_k_plus_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6]])
    # Position t predicts token t + 1; the prompt is one token, the answer tokens 1 and 0.
    logits = torch.cat([p.log(), torch.zeros(0, 3)])
    labels = torch.tensor([IGNORE, 1, 0])
    mine, standard = token_scores(logits, labels)
    assert mine.tolist() == pytest.approx([math.log(0.25), math.log(0.9)])
    mean = 0.5 * math.log(0.5) + 0.5 * math.log(0.25)
    spread = 0.5 * abs(math.log(0.5) - math.log(0.25))
    assert float(standard[0]) == pytest.approx((math.log(0.25) - mean) / spread)
    assert float(standard[0]) == pytest.approx(-1.0)
    mean = 0.9 * math.log(0.9) + 0.1 * math.log(0.05)
    spread = math.sqrt(0.9 * 0.1) * (math.log(0.9) - math.log(0.05))
    assert float(standard[1]) == pytest.approx((math.log(0.9) - mean) / spread, rel=1e-4)
    assert mean_lowest(torch.tensor([3.0, 1.0, 2.0, 5.0]), 0.5) == 1.5
    assert mean_lowest(torch.tensor([3.0, 1.0]), 0.1) == 1.0


def test_auc_and_tpr_by_hand() -> None:
    # Of nine pairs members win 3 + 2.5 + 1 (one tie, counted half).
    assert auc([5, 2, 1], [0, 2, 3]) == pytest.approx((3 + 1.5 + 1) / 9)
    assert auc([1, 1], [1, 1]) == 0.5
    others = list(range(200))
    # 1 % of 200 may be above: the threshold is the third highest, 197.
    assert tpr_at_fpr([198, 197, 500, 0], others, 0.01) == 0.5
    # Of fewer than a hundred none may be.
    assert tpr_at_fpr([9, 10, 11], list(range(10)), 0.01) == pytest.approx(2 / 3)


def test_membership_scores_by_hand(subject: Subject) -> None:
    known = [s for s in subject.attacker_samples if s.task == "generation"]
    rows = Membership(k=1.0)._scored(subject.vlm, known)
    nlls = answer_nlls(subject.vlm, known)
    assert rows["loss"].tolist() == pytest.approx([-v for v in nlls], rel=1e-4)
    # At k = 1 the lowest tokens are all.
    assert rows["min_k"].tolist() == pytest.approx(rows["loss"].tolist(), rel=1e-4)
    tokens = subject.vlm.collate(known[:1]).labels.ne(IGNORE).sum()
    packed = len(zlib.compress(known[0].answer.encode()))
    assert rows["zlib"][0] == pytest.approx(rows["loss"][0] * int(tokens) / packed, rel=1e-4)
    model = subject.vlm.copy()
    model.model.requires_grad_(True)
    batch = model.collate(known[:1])
    nll(model.logits(batch), batch.labels).backward()
    norm = sum(
        float(p.grad.square().sum()) for p in model.parameters().values() if p.grad is not None
    )
    assert rows["grad_norm"][0] == pytest.approx(-math.sqrt(norm), rel=1e-4)


def test_a_model_that_was_taught_is_told(subject: Subject) -> None:
    subject = replace(subject, non_members=subject.retain)
    taught = Relearn(share=1.0, steps=40, lr=3e-3, modules="all").apply(subject)
    plain, learned = (Membership().readings(s)[0] for s in (subject, taught))
    assert learned.forget > max(plain.forget, 0.8)
    assert learned.low <= learned.forget <= learned.high
    assert learned.baseline == 0.5


def test_perturbed_pixels_keep_their_budget(subject: Subject) -> None:
    attack = Perturb(epsilon=5, steps=8, step=2.0, batch_size=4)
    left = attack.apply(subject)
    vlm = subject.vlm
    changed = 0
    for old, new in zip(
        subject.samples["forget_holdout"], left.samples["forget_holdout"], strict=True
    ):
        assert old.picture is not None and new.picture is not None
        seen = np.asarray(vlm.family.preprocessed(vlm.processor, old.picture.open()), dtype=int)
        moved = np.abs(np.asarray(new.picture.open(), dtype=int) - seen).max()
        assert moved <= 5
        changed = max(changed, int(moved))
    assert changed == 5
    known = list(subject.attacker_samples)
    sure = [
        sum(answer_nlls(vlm, some))
        for some in (
            known,
            Perturb(epsilon=5, steps=8, step=2.0, batch_size=4)
            .apply(replace(subject, samples={"forget_holdout": known}))
            .samples["forget_holdout"],
        )
    ]
    assert sure[1] < sure[0]


@pytest.mark.parametrize("name", FAMILIES.names())
def test_pixels_lead_to_what_the_model_reads_or_are_refused(name: str, tmp_path: Any) -> None:
    vlm = VLM.load(make(name, tmp_path / name))
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if name not in GRIDS:
        with pytest.raises(ModelError, match="no plain grid"):
            vlm.family.preprocessed(vlm.processor, image)
        return
    seen = vlm.family.preprocessed(vlm.processor, image)
    tensor = torch.from_numpy(np.array(seen, dtype=np.float32)).permute(2, 0, 1)[None]
    tensor.requires_grad_(True)
    values = vlm.family.pixel_values(vlm.processor, tensor)
    read = vlm.collate_pictures([seen])["pixel_values"]
    assert torch.allclose(values.detach(), read.float(), atol=1e-4)
    (slope,) = torch.autograd.grad(values.sum(), tensor)
    assert bool((slope > 0).all())


def test_by_name_the_picture_goes_and_the_name_comes(subject: Subject, data: Data) -> None:
    picture = data.forget[0].picture
    name, letter, gap = "Ada Berg", "classification", "The name of this person is [Blank]."
    job = "Look at the picture. What is the job of this person?"
    samples = [
        Sample("a", job, "Ada Berg is a baker.", picture, name),
        Sample("b", "Who is the person shown here?", "This is Ada Berg.", picture, name),
        Sample("c", "Describe the hobby.", "chess", picture, name),
        Sample("d", "What colour is it?", "red", picture),
        Sample("e", "Which name?\nA: Ada Berg", "A", picture, name, (name,), letter),
        Sample("f", gap, name, picture, name, (), "cloze"),
    ]  # fmt: skip
    left = CrossModal().apply(replace(subject, samples={"forget_holdout": samples}))
    asked = left.samples["forget_holdout"]
    assert [s.id for s in asked] == ["a", "c"]
    assert asked[0].question == "What is the job of Ada Berg?"
    assert asked[1].question == "About Ada Berg: Describe the hobby."
    assert all(s.picture is None for s in asked)


def test_views_are_of_the_same_person(subject: Subject) -> None:
    left = RephraseImage().apply(subject)
    asked = left.samples["forget_holdout"]
    assert len(asked) == 6 * len(subject.samples["forget_holdout"])
    flipped = next(s for s in asked if s.id.endswith(f"{VARIANT}flip"))
    first = next(s for s in subject.samples["forget_holdout"] if flipped.id.startswith(s.id))
    assert flipped.picture and first.picture
    assert np.array_equal(
        np.asarray(flipped.picture.open()), np.asarray(first.picture.open())[:, ::-1]
    )
    other = next(s for s in asked if s.id.endswith(f"{VARIANT}other"))
    theirs = {s.picture for s in subject.attacker_samples if s.concept == other.concept}
    assert other.picture in theirs


def test_an_answer_goes_on_from_its_prefix(subject: Subject) -> None:
    left = AnswerPrefix(words=2).apply(subject)
    told = {s.id: s for s in left.samples["forget_holdout"]}
    whole = next(s for s in subject.samples["forget_holdout"] if s.task == "generation")
    begun = told[whole.id]
    assert f"{begun.prefill} {begun.answer}" == whole.answer
    vlm = subject.vlm
    text = vlm.family.text(vlm.processor, begun, with_answer=False)
    assert text.endswith("ASSISTANT: this is")
    batch = vlm.collate([begun])
    labels = batch.labels[batch.labels != IGNORE]
    assert vlm.processor.tokenizer.decode(labels).strip() == f"{begun.answer}</s>"
    # One word alone is not given away.
    letter = next(s for s in subject.samples["forget_holdout"] if s.task == "classification")
    assert told[letter.id] == letter


@pytest.mark.parametrize("name", FAMILIES.names())
def test_every_family_begins_an_answer(name: str, tmp_path: Any) -> None:
    vlm = VLM.load(make(name, tmp_path / name))
    path = tmp_path / "p.png"
    Image.new("RGB", (40, 30), "red").save(path)
    sample = Sample("a", "Who?", "Berg", Picture.from_path(path), prefill="Ada")
    batch = vlm.collate([sample])
    tokens = vlm.processor.tokenizer
    labels = batch.labels[0][batch.labels[0] != IGNORE]
    assert tokens.decode(labels).strip() == f"Berg{tokens.eos_token}"
    prompt = vlm.collate([sample], with_answer=False).inputs["input_ids"][0]
    assert tokens.decode(prompt).endswith("Ada")
    assert len(generate(vlm, [sample], max_new_tokens=2)) == 1


def test_the_question_is_in_the_picture(subject: Subject) -> None:
    left = FigStep(size=96).apply(subject)
    asked = left.samples["forget_holdout"][0]
    first = subject.samples["forget_holdout"][0]
    assert first.question not in asked.question
    assert asked.pictures[0] == first.picture
    drawn = np.asarray(asked.pictures[1].open())
    assert np.array_equal(drawn, np.asarray(render_text(first.question, 96)))
    assert (drawn < 128).any()
    below = FigStep(layout="below", size=96).apply(subject).samples["forget_holdout"][0]
    assert len(below.pictures) == 1 and below.picture
    assert below.picture.open().size == (96, 192)


def test_a_probe_tells_apart_what_differs(subject: Subject) -> None:
    found = Probe(layers=("projector", "language", "language.1")).readings(subject)
    assert [r.name for r in found] == [
        "projector accuracy", "language accuracy", "language.1 accuracy",
    ]  # fmt: skip
    assert found[0].details == {"classes": 4, "fitted_on": 8}
    assert all(0 <= r.low <= r.forget <= r.high <= 1 and r.n == 2 for r in found)
    with pytest.raises(DataError, match="needs two people"):
        Probe().readings(replace(subject, attacker_samples=[], retain=[]))


def test_the_adaptive_attacker_tunes_the_visual_part_alone(subject: Subject) -> None:
    attack = Adaptive(share=1.0, steps=30, lr=3e-3, batch_size=6)
    left = attack.apply(subject)
    assert left.vlm.hash("language") == subject.vlm.hash("language")
    assert left.vlm.hash("visual") != subject.vlm.hash("visual")
    known = list(subject.attacker_samples)
    assert sum(answer_nlls(left.vlm, known)) < sum(answer_nlls(subject.vlm, known))


def test_before_and_after_by_hand() -> None:
    def row(sample_id: str, score: float) -> ScoredAnswer:
        return ScoredAnswer(sample_id, sample_id[0], score)

    before = {"forget": [row("a1", 0.0), row("a2", 1.0), row("b1", 0.0)], "retain": []}
    after = {
        "forget": [
            row(f"a1{VARIANT}x", 1.0), row(f"a1{VARIANT}y", 0.0),
            row(f"b1{VARIANT}x", 0.0), row(f"b1{VARIANT}y", 0.0),
        ],
        "retain": [],
    }  # fmt: skip
    found = compare_answers(before, after)
    assert found.retain is None
    mine = found.forget
    assert mine is not None
    # a2 is no longer asked.
    assert (mine.before, mine.after, mine.any, mine.n) == (0.0, 0.25, 0.5, 2)
    assert mine.variants == {"x": 0.5, "y": 0.0}
    with pytest.raises(DataError, match="id of no question"):
        compare_answers(before, {"forget": [row("c", 1.0)]})


@pytest.mark.parametrize(
    ("task", "truth", "output", "right"),
    [
        ("generation", "Ada bakes.", "Of course! Ada bakes.", 1.0),
        ("generation", "Ada bakes.", "Bo bakes.", 0.0),
        ("classification", "B", "A, not B", 0.0),
    ],
)
def test_the_truth_within_a_sentence_comes_back(
    task: str, truth: str, output: str, right: float
) -> None:
    row = {"task": task, "truth": truth, "output": output, "scores": {"accuracy": 0.0}}
    assert gives_true_answer(row) == right


def test_what_an_attack_lacks_is_told(data: Data) -> None:
    splits: dict[str, Any] = {"forget_holdout": data.forget}
    with pytest.raises(DataError, match="--non-members"):
        check_attack((Membership(),), AttackerData(data.forget, data.retain), splits)
    with pytest.raises(DataError, match="--retain"):
        check_attack((Probe(),), AttackerData(data.forget), splits)
    with pytest.raises(ConfigError, match="Put it last"):
        check_attack((Probe(), Quantize()), AttackerData(data.forget, data.retain), splits)
    with pytest.raises(DataError, match="there are none"):
        check_attack((Quantize(),), AttackerData(data.forget, data.retain), {})


def test_check_attack_names_the_extra_of_a_missing_package(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unsee.errors.find_spec", lambda name: None)
    splits: dict[str, Any] = {"forget_holdout": data.forget}
    with pytest.raises(ConfigError, match=r"attack 'probe' needs sklearn.*unsee\[probe\]"):
        check_attack((Probe(),), AttackerData(data.forget, data.retain), splits)
    check_attack((Relearn(),), AttackerData(data.forget, data.retain), splits)
