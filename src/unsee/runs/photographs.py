"""The evaluation of a run that was given photographs alone: open questions, and features.

Nobody knows the right answers there. What the target model says most of a person stands in for
them, and features are compared as a face recognition system compares them: see
`unsee.evaluation.open_answers` and `unsee.evaluation.recognition`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache as call_once
from functools import partial
from typing import Literal

import torch
from pydantic import TypeAdapter

from unsee.artifacts.guarantees import text_probes
from unsee.errors import ModelError, first_line
from unsee.evaluation.bootstrap import estimate
from unsee.evaluation.equivalence import PersonScores, person_scores
from unsee.evaluation.generation import answers
from unsee.evaluation.open_answers import (
    MAX_NEW_TOKENS,
    names_another,
    said_most,
    says,
)
from unsee.evaluation.recognition import FALSE_ACCEPTS, recognise_people, zero_shot_names
from unsee.features.pooled import TOKENS, compared_layers, pooled_features
from unsee.metrics import normalize_answer
from unsee.models.checkpoint import resolve, weight_map
from unsee.models.devices import pick_device
from unsee.models.memory import free_memory
from unsee.models.validation import check_checkpoint
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.job import NO_ANSWERS, SWITCHED_OFF, Job
from unsee.records.folder import RunFolder
from unsee.records.part import RecordPart
from unsee.records.recognition import ForgottenPerson, Recognition
from unsee.records.schema import Guarantees, Measure, Measures, SampleResult
from unsee.runs.photograph_sets import FORGET_SPLITS, OTHERS, PhotographSets, by_person
from unsee.runs.stage_cache import StageCache
from unsee.types import Better, Sample

LOGGER = logging.getLogger("unsee")


class OpenAnswer(RecordPart):
    """A model's answer to an open question about a picture."""

    text: str
    fault: Literal["non_finite", "empty"] | None = None


class LayerRecognition(RecordPart):
    """How well a person is recognised at a layer; see `PersonRecognition`."""

    rank_1: float | None = None
    verification_auc: float | None = None
    verification_rate: float | None = None


class RecognisedPeople(RecordPart):
    """How well each person is recognised at a layer."""

    by_person: dict[str, LayerRecognition]


OPEN_ANSWERS = TypeAdapter(dict[str, OpenAnswer])
PROBES = TypeAdapter(tuple[str, ...])
# The caption of a name, after the prompts of CLIP (arXiv 2103.00020, section 3.1.4).
CAPTION = "a photo of {}."
# By split and picture.
NAMED = TypeAdapter(dict[str, dict[str, str]])
# By layer.
RECOGNISED = TypeAdapter(dict[str, RecognisedPeople])


@dataclass(frozen=True)
class PhotographResults:
    """Measures on photographs of every model, and how they were made.

    Attributes:
        measures: By model, then by "split/modality/metric".
        rows: The answers, by model.
        people: Mean scores of people, by model and measure.
        record: How it was measured.
        text: SHA-256 of the logits of every text-only probe, by "target" and "unlearned"; empty if
            no question was asked, so that the language model was not loaded.
    """

    measures: Mapping[str, Measures]
    rows: Mapping[str, tuple[SampleResult, ...]]
    people: Mapping[str, Mapping[str, PersonScores]]
    record: Recognition
    text: Mapping[str, tuple[str, ...]]

    def with_text(self, checked: Guarantees) -> Guarantees:
        """Returns the guarantees with the comparison of text-only probes, if there was one."""
        if not self.text.get("target") or checked.text_probes:
            return checked
        return checked.model_copy(
            update={
                "text_identical": self.text["target"] == self.text["unlearned"],
                "text_probes": len(self.text["target"]),
                "reason": "the language part's hash was not compared, as training never loaded it; "
                "`unsee verify` compares it in full once the patch is applied",
            }
        )


def measure_photographs(
    job: Job, vlm: VLM, folder: RunFolder, cache: StageCache, bar: Bar
) -> PhotographResults:
    """Asks open questions about photographs and compares their features, for every model.

    Args:
        job: A job that was given photographs alone.
        vlm: The unlearned model.
        folder: The run folder.
        cache: Keeps each model's answers and recognition.
        bar: Shows the progress.
    """
    sets = PhotographSets.of(job)
    reason = cannot_ask(job)
    loaders = model_loaders(job, vlm, reason is None)
    if reason is not None and not job.encoder:
        LOGGER.warning(f"no question is asked about the photographs: {reason}")
    layers = compared_layers(vlm)
    questions = tuple(job.open_questions or ()) if reason is None else ()
    said: dict[str, str] = {}
    target: Mapping[str, OpenAnswer] = {}
    measures: dict[str, Measures] = {}
    rows: dict[str, tuple[SampleResult, ...]] = {}
    people: dict[str, dict[str, PersonScores]] = {}
    text: dict[str, tuple[str, ...]] = {}
    names = 0
    # The other answers are compared with those of the target; an audit may have none.
    for name in sorted(loaders, key=lambda name: name != "target"):
        load = call_once(loaders[name])
        label = name.replace("_", "-")
        measures[name], people[name], rows[name] = {}, {}, ()
        if questions:
            stage = bar.stage(f"asking the {label} model who is on the photographs")
            ask = partial(_ask, load, sets, questions, name == "target", stage.count)
            given = cache.get_or_compute(OPEN_ANSWERS, "open-answers", name, ask, personal=True)
            if name == "target":
                target, said = given, _statements(sets, questions, given)
            rows[name] = _rows(sets, questions, given, target, said)
            folder.append_scores(name, rows[name])
            _add(measures[name], people[name], _scores_of_rows(rows[name]), binary=True)
            if name in ("target", "unlearned"):
                probe = partial(_probe_text, load)
                text[name] = cache.get_or_compute(PROBES, "text-probes", name, probe)
        bar.stage(f"comparing the {label} model's features of the photographs")
        compare = partial(_recognise, load, sets, layers)
        found = cache.get_or_compute(RECOGNISED, "recognition", name, compare, personal=True)
        _add(measures[name], people[name], _scores_of_features(sets, found), binary=False)
        if job.encoder:
            bar.stage(f"naming the photographs zero-shot, {label} model")
            name_all = partial(_zero_shot, load, sets)
            named = cache.get_or_compute(NAMED, "zero-shot", name, name_all, personal=True)
            _add(measures[name], people[name], _scores_of_names(sets, named), binary=True)
            names = len(sets.names) if named else names
    folder.write_scores(rows)
    record = _record(job, sets, layers, reason).model_copy(
        update={"encoder": job.encoder, "names": names}
    )
    return PhotographResults(measures, rows, people, record, text)


def cannot_ask(job: Job) -> str | None:
    """Returns why no open question can be asked; None if they can.

    The reason stands in the record, so it names no path; details are logged.

    Args:
        job: A job that was given photographs alone.
    """
    if job.encoder:
        return NO_ANSWERS
    if not job.open_questions:
        return SWITCHED_OFF
    for source in (job.model, *job.references.values()):
        folder = resolve(source)
        try:
            check_checkpoint(folder, trust_remote_code=job.trust_remote_code)
        except ModelError as error:
            LOGGER.warning(f"the language model cannot be asked: {first_line(error)}")
            return "the weights of a language model are not there, or damaged"
        needed = sum(path.stat().st_size for path in set(weight_map(folder).values()))
        free = free_memory(pick_device(job.device))
        if free is not None and 1.1 * needed > free:
            return (
                f"a whole model takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB "
                "are free"
            )
    return None


def model_loaders(job: Job, vlm: VLM, is_asked: bool | None = None) -> dict[str, Callable[[], VLM]]:
    """Returns how each model is loaded, by name, the unlearned one among them.

    Of a job that was given photographs alone they are loaded whole if questions can be asked, and
    otherwise with their visual part.

    Args:
        job: The job.
        vlm: The unlearned model.
        is_asked: Whether questions can be asked; None finds out.
    """
    if is_asked is None:
        is_asked = job.open_questions is not None and cannot_ask(job) is None
    whole = replace(job, visual_only=False) if is_asked else job

    def unlearned() -> VLM:
        if not vlm.visual_only or whole.visual_only:
            return vlm
        return with_visual_part(whole.load(job.model), vlm)

    loaders: dict[str, Callable[[], VLM]] = {
        name: partial(whole.load, source) for name, source in job.references.items()
    }
    return {"unlearned": unlearned, **loaders}


@torch.no_grad()
def with_visual_part(whole: VLM, visual: VLM) -> VLM:
    """Returns a model after the weights of its visual part were replaced by another's.

    Args:
        whole: The model; it is changed.
        visual: A model of the same shape, which may be without a language part.
    """
    weights = visual.parameters("visual")
    for name, weight in whole.parameters("visual").items():
        weight.copy_(weights[name])
    return whole


def _ask(
    load: Callable[[], VLM],
    sets: PhotographSets,
    questions: Sequence[str],
    is_target: bool,
    on_batch: Callable[[int, int], None],
) -> dict[str, OpenAnswer]:
    """The answers of a model by id; the target is also asked about pictures in the gallery."""
    pictures = [sample for some in sets.asked.values() for sample in some]
    samples = _questions([*pictures, *(sets.heard if is_target else ())], questions)
    given: dict[str, OpenAnswer] = {}
    for start in range(0, len(samples), 64):
        some = samples[start : start + 64]
        texts = answers(load(), some, score_answers=False, max_new_tokens=MAX_NEW_TOKENS)
        for sample, answer in zip(some, texts, strict=True):
            # Of a cut answer, what is there counts: a name stands near the beginning.
            fault = None if answer.fault == "cut" else answer.fault
            given[sample.id] = OpenAnswer(text=answer.text, fault=fault)
        on_batch(start + len(some), len(samples))
    return given


def _probe_text(load: Callable[[], VLM]) -> tuple[str, ...]:
    return text_probes(load())


def _questions(samples: Sequence[Sample], questions: Sequence[str]) -> list[Sample]:
    return [
        replace(s, id=_id(s, number), question=question, answer="")
        for s in samples
        for number, question in enumerate(questions)
    ]


def _id(sample: Sample, number: int) -> str:
    # A held-out picture and one of training may have the same id in different folders.
    return f"{sample.picture.source if sample.picture else sample.id} | {number}"


def _statements(
    sets: PhotographSets, questions: Sequence[str], given: Mapping[str, OpenAnswer]
) -> dict[str, str]:
    """The statement that most of the target's answers about a person make, by person."""
    said: dict[str, str] = {}
    for person, samples in by_person(sets.heard).items():
        texts = [given[_id(s, n)].text for s in samples for n in range(len(questions))]
        statement = said_most(texts)
        if statement is not None:
            said[person] = statement
    return said


def _rows(
    sets: PhotographSets,
    questions: Sequence[str],
    given: Mapping[str, OpenAnswer],
    target: Mapping[str, OpenAnswer],
    said: Mapping[str, str],
) -> tuple[SampleResult, ...]:
    """A row for every question and picture, scored against the target's answers."""
    away = {str(s.concept) for split in FORGET_SPLITS for s in sets.tested.get(split, ())}
    groups = {
        "names_forgotten": {p: text for p, text in said.items() if p in away},
        "names_kept": {p: text for p, text in said.items() if p not in away},
    }
    rows = []
    for split, samples in sets.asked.items():
        for sample in samples:
            for number, question in enumerate(questions):
                answer = given[_id(sample, number)]
                scores = _scores(split, str(sample.concept), answer.text, said, groups)
                before = target[_id(sample, number)].text
                same = normalize_answer(answer.text) == normalize_answer(before)
                scores = {"same_answer": float(same), **scores}
                row = SampleResult(
                    split=split,
                    modality="vqa",
                    task="generation",
                    id=f"{sample.id} | {number}",
                    concept=str(sample.concept),
                    picture=os.path.abspath(sample.picture.source) if sample.picture else None,
                    question=question,
                    truth=said.get(str(sample.concept), ""),
                    output=answer.text,
                    scores=dict.fromkeys(scores) if answer.fault else scores,
                )
                fault = {"fault": answer.fault} if answer.fault else {}
                rows.append(row.model_copy(update=fault))
    return tuple(rows)


def _scores(
    split: str,
    person: str,
    text: str,
    said: Mapping[str, str],
    groups: Mapping[str, Mapping[str, str]],
) -> dict[str, float | None]:
    """The scores of an answer against the target's answers about this person and others."""
    scores: dict[str, float | None] = {}
    if person in said:
        scores["said_before"] = float(says(text, said[person]))
        for metric, group in groups.items():
            if group.keys() - {person}:
                named = names_another(text, person, {**group, person: said[person]})
                scores[metric] = float(named)
    forgotten = groups["names_forgotten"]
    if split not in FORGET_SPLITS and forgotten:
        scores["said_of_others"] = sum(says(text, s) for s in forgotten.values()) / len(forgotten)
    return scores


# Which direction is better, by metric, for people to be forgotten; of others the opposite.
FALLS: Mapping[str, Better] = {
    "said_before": "lower",
    "same_answer": "lower",
    "rank_1": "lower",
    "verification_auc": "lower",
    "verification_rate": "lower",
    "zero_shot": "lower",
}


def _better(split: str, metric: str) -> Better:
    falls = metric.partition("@")[0] in FALLS
    forgets = split.startswith("forget")
    return "lower" if forgets or not falls else "higher"


Scores = dict[str, tuple[list[float], list[str]]]


def _scores_of_rows(rows: Sequence[SampleResult]) -> Scores:
    """The scores and people of each measure of answers."""
    scores: Scores = {}
    for row in rows:
        for metric, value in row.scores.items():
            # What is said of others by a forgotten person's name, over all of them.
            split = OTHERS if metric == "said_of_others" else row.split
            values, concepts = scores.setdefault(f"{split}/vqa/{metric}", ([], []))
            values.append(math.nan if value is None else value)
            concepts.append(str(row.concept))
    return scores


def _scores_of_features(sets: PhotographSets, found: Mapping[str, RecognisedPeople]) -> Scores:
    """The scores and people of each measure of features."""
    scores: Scores = {}
    for split, samples in sets.tested.items():
        for person in by_person(samples):
            for layer, recognised in found.items():
                at = "" if layer == TOKENS else f"@{layer}"
                one = recognised.by_person.get(person, LayerRecognition())
                for metric in ("rank_1", "verification_auc", "verification_rate"):
                    value = getattr(one, metric)
                    values, concepts = scores.setdefault(f"{split}/features/{metric}{at}", ([], []))
                    values.append(math.nan if value is None else value)
                    concepts.append(person)
    return scores


def _add(measures: Measures, people: dict[str, PersonScores], scores: Scores, binary: bool) -> None:
    """Adds the estimates of scores, and the scores of people."""
    for key, (values, concepts) in scores.items():
        split, _, metric = key.split("/")
        measures[key] = Measure.of(estimate(values, concepts, _better(split, metric)))
        if metric == "same_answer":
            # Agreement with the target: a reference has no reason to agree as much.
            continue
        scored = person_scores(values, concepts)
        people[key] = scored if binary else PersonScores(scored.by_person)


def _recognise(
    load: Callable[[], VLM], sets: PhotographSets, layers: Sequence[str]
) -> dict[str, RecognisedPeople]:
    """How well each tested person is recognised in the gallery, by layer."""
    gallery = [*sets.enrolled, *sets.strangers]
    tested = [sample for some in sets.tested.values() for sample in some]
    place = {str(s.picture.source): i for i, s in enumerate(gallery) if s.picture}
    same = [place.get(str(s.picture.source)) if s.picture else None for s in tested]
    pictures = [s.picture for s in (*gallery, *tested) if s.picture is not None]
    found = {}
    for layer, features in pooled_features(load(), pictures, layers).items():
        by_person = recognise_people(
            features[: len(gallery)],
            [str(s.concept) for s in gallery],
            features[len(gallery) :],
            [str(s.concept) for s in tested],
            same,
        )
        people = {person: LayerRecognition(**asdict(one)) for person, one in by_person.items()}
        found[layer] = RecognisedPeople(by_person=people)
    return found


@torch.no_grad()
def _zero_shot(load: Callable[[], VLM], sets: PhotographSets) -> dict[str, dict[str, str]]:
    """The nearest name to each tested photograph, by split and id; empty without a text tower."""
    vlm = load()
    texts = vlm.embed_text([CAPTION.format(name) for name in sets.names])
    if texts is None:
        return {}
    named = {}
    for split, samples in sets.tested.items():
        pictures = [s.picture for s in samples if s.picture is not None]
        found = pooled_features(vlm, pictures, ())[TOKENS]
        names = zero_shot_names(found, texts.float().cpu().numpy(), sets.names)
        named[split] = {_id(s, 0): name for s, name in zip(samples, names, strict=True)}
    return named


def _scores_of_names(sets: PhotographSets, named: Mapping[str, Mapping[str, str]]) -> Scores:
    """Whether each tested photograph is named right, and its person, by measure."""
    scores: Scores = {}
    for split, names in named.items():
        for sample in sets.tested[split]:
            values, concepts = scores.setdefault(f"{split}/features/zero_shot", ([], []))
            values.append(float(names[_id(sample, 0)] == sample.concept))
            concepts.append(str(sample.concept))
    return scores


def _record(
    job: Job, sets: PhotographSets, layers: Sequence[str], reason: str | None
) -> Recognition:
    forgotten = by_person(job.data.forget)
    held = by_person(job.splits.get("forget_holdout", ()))
    enrolled = by_person(sets.enrolled)
    identities = len(enrolled) + len(sets.strangers)
    decoys = {
        "forgotten": sum(person in forgotten for person in enrolled) - 1,
        "kept": sum(person not in forgotten for person in enrolled),
        "drawn" if job.drawn_strangers else "strangers": len(sets.strangers),
    }
    return Recognition(
        questions=tuple(job.open_questions or ()) if reason is None else (),
        not_asked=reason,
        layers=tuple(layers),
        identities=identities,
        decoys={kind: count for kind, count in decoys.items() if count > 0},
        chance=1 / identities if identities > 1 else None,
        false_accepts=FALSE_ACCEPTS,
        people=tuple(
            ForgottenPerson(
                concept=person,
                photographs=len(forgotten.get(person, ())) + len(held.get(person, ())),
                held_out=len(held.get(person, ())),
                sha256=tuple(
                    s.picture.digest
                    for s in (*forgotten.get(person, ()), *held.get(person, ()))
                    if s.picture is not None
                ),
            )
            for person in dict.fromkeys([*forgotten, *held])
        ),
    )
