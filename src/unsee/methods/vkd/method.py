"""Visual knowledge distillation: tune the visual part only, supervised by a teacher's features."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from unsee.data.selection import one_sample_per_picture
from unsee.data.widening import few_note, few_photographs, widened
from unsee.errors import ConfigError, DataError
from unsee.features.capture import Features, capture, split_by_picture
from unsee.features.layers import choose_layers, layer_parameters
from unsee.features.saliency import (
    answer_probes,
    gradient_mask,
    gradient_masks,
    mask_counts,
    picture_probes,
)
from unsee.features.statistics import scaled_distance
from unsee.losses import nll, sequence_logps
from unsee.methods import METHODS, Method, Search
from unsee.methods.npo import npo_loss
from unsee.methods.vkd.batches import BatchMaker
from unsee.methods.vkd.distillation import Distillation
from unsee.methods.vkd.erase_targets import (
    AnonymousTarget,
    EraseTarget,
    NeutralTarget,
    PushTarget,
    StrangerTarget,
    group_samples,
    share_of_people,
    traits_of_groups,
    weight_of_traits,
)
from unsee.methods.vkd.feature_cache import FeatureCache, refuse_small
from unsee.methods.vkd.frozen_prefix import frozen_prefix, student_features
from unsee.methods.vkd.inner_relearning import (
    gradient_after_relearning,
    inner_attack,
)
from unsee.methods.vkd.language_tier import unlearn_language
from unsee.methods.vkd.layer_statistics import LayerStatistics
from unsee.methods.vkd.populations import (
    RENAMES,
    Population,
    available_population,
    generated_samples,
    population_note,
    population_pictures,
    refuse_population,
)
from unsee.methods.vkd.presets import ENCODERS, PRESETS
from unsee.models.memory import release_freed_memory
from unsee.training.sampling import seed_step
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer, TrainingResult
from unsee.types import Batch, Data, Part, Picture, Sample

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM


BETA = 0.9  # NPO's inverse temperature

Unit = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


@METHODS.register("vkd", source="arXiv 2512.11325")
@dataclass(frozen=True)
class VKD(Method):
    """Visual knowledge distillation (VKD): frozen LLM, supervised by a teacher's visual features.

    L = w_forget L_out(D_f) + w_retain NLL(D_r) + w_keep mean_l d(h_l(x_r), t_l(x_r))
        + w_erase mean_l e(h_l(x_f), target_l), h and t the features of student and teacher.

    Source: arXiv 2512.11325. The paper's are the frozen LLM, the partial tuning of the visual
    components, and the supervision by intermediate visual representations of a teacher beside the
    output-level loss. Ours are the erase targets, augmentation, features-only and relearning-aware
    modes.
    Differs: terms are averaged over layers, so that weights do not depend on the depth.

    Attributes:
        tier: "visual" changes the visual part alone; "language" first also the LLM's MLPs that
            retrieve the identity, so that text may change; see `unlearn_language`.
        supervision: "full" also uses answers; "features" uses pictures only and never runs the
            LLM (w_forget and w_retain then have no effect).
        answers_every: Apply the answer loss to one batch in every N; features only in the others.
        w_forget: Weight of the output-level forget loss, NPO; 0 does not compute it.
        w_retain: Weight of the retain answers' negative log-likelihood; 0 does not compute it.
        w_keep: Weight of the distance from the teacher's features on retain pictures.
        w_erase: Weight of the erase term on forget pictures.
        scale_erase: Whether erase=anonymous weighs more where the people to forget differ less from
            the population than pocket's do, as on photographs, and less where they differ more or
            are only one or two, for whom the default rate is smaller as well.
        alike_steps: Multiple of the default number of steps that training takes where the erase
            term weighs half as much again or more because the people differ so little. It does not
            apply where a number of steps was set.
        erase: Target of forget pictures' features: the teacher's without what all pictures of the
            person have in common ("anonymous"), those of an unnamed "stranger", the "neutral"
            population mean, or away from the teacher's ("push").
        erase_strength: How much of the common part "anonymous" subtracts: 1 moves the person's
            mean to the population's, more moves it beyond.
        population: Whose mean that is: of the pictures to be "kept" (and strangers), of the people
            to be kept who look "nearest" to the person (after k-Same, Newton et al., IEEE TKDE
            17(2), 2005), of "generated" pictures of nobody, composed from those to forget and kept
            as they are too, or of all pictures to "forget", which gives people each other's names.
        augment: Strength of the augmentation of forget pictures, 0..1; 0 is none. Retain pictures
            are augmented half as strongly.
        widen: Number of pictures that each person is brought up to by widened views of theirs,
            framed, lit and coloured otherwise; 0 adds none.
        train_layers: Layers whose weights are trained; "all" is the whole visual part.
        saliency_fraction: Share of the visual weights that are trained, those of the highest Fisher
            ratio; 0 trains all.
        prune: Share of visual MLP neurons zeroed first, by forget-to-retain activation.
        relearn_steps: Largest number of steps of an inner attacker, after which the forget loss is
            also evaluated (first-order MAML). The number is drawn each time; 0 is no attacker. They
            have the teacher's features, which is faster and stronger than having the answers.
        relearn_lr: Learning rate of the inner attacker; None is the training's own.
        relearn_every: Steps between two inner attacks.
        cache: Folder that keeps the teacher's features for other runs. Without it they are only
            cached in memory, for pictures that are not augmented. It grows to 20 GB at most, and to
            half of what is free.

    Example:
        >>> from unsee import Trainer, TrainingSettings
        >>> from unsee.methods.vkd import VKD
        >>> trainer = Trainer(TrainingSettings(steps=1, batch_size=2))
        >>> result = VKD(supervision="features").unlearn(vlm, data, trainer)
        >>> sorted(result.history.last)
        ['erase', 'keep']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain", "teacher"})
    language_field: ClassVar[str] = "tier"
    defaults: ClassVar[Mapping[str, object]] = {"steps": 400, "lr": 2e-3}
    rate_width: ClassVar[int] = 128
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = PRESETS
    for_encoders: ClassVar[Mapping[str, Any]] = ENCODERS
    # Under AdamW only the ratio of the weights counts.
    search: ClassVar[Search] = {
        "w_keep": (80.0, 160.0, 320.0),
        "erase_strength": (1.5, 2.0, 3.0),
    }
    value_aliases: ClassVar[Mapping[str, Mapping[str, str]]] = {"population": {"alike": "nearest"}}

    trains: Part = "visual"
    tier: Literal["visual", "language"] = "visual"
    supervision: Literal["full", "features"] = "full"
    answers_every: Annotated[int, Field(ge=1)] = 4
    w_forget: Weight = 0.5
    w_retain: Weight = 1.0
    w_keep: Weight = 160.0
    w_erase: Weight = 8.0
    scale_erase: bool = True
    alike_steps: Annotated[float, Field(ge=1)] = 2.0
    erase: Literal["anonymous", "stranger", "neutral", "push"] = "anonymous"
    erase_strength: Annotated[float, Field(gt=0)] = 2.0
    population: Population = "nearest"
    augment: Unit = 1.0
    widen: Annotated[int, Field(ge=0)] = 0
    train_layers: tuple[str, ...] = ("all",)
    saliency_fraction: Unit = 0.0
    prune: Annotated[float, Field(ge=0, lt=1)] = 0.0
    relearn_steps: Annotated[int, Field(ge=0)] = 10
    relearn_lr: Annotated[float, Field(gt=0)] | None = None
    relearn_every: Annotated[int, Field(ge=1)] = 2
    cache: str | None = None

    @property
    def required(self) -> frozenset[str]:
        """Also "strangers" with erase=stranger, "answers" with tier=language."""
        strangers = {"strangers"} if self.erase == "stranger" else set()
        return self.needs | strangers | ({"answers"} if self.changes_language else set())

    @property
    def changes_language(self) -> bool:
        """Whether tier=language."""
        return self.tier == "language"

    @property
    def merges_first_stage(self) -> bool:
        """Whether tier=language: its adapters are merged before the visual part is trained."""
        return self.changes_language

    @property
    def reads_language(self) -> bool:
        """Whether the language model runs: not with supervision=features and tier=visual."""
        return self.supervision == "full" or self.changes_language

    def adapt_to(self, data: Data, given: Collection[str] = ()) -> tuple[VKD, list[str]]:
        """Without answers, features alone supervise; without a retain set, population=generated.

        The second applies where neither a retain set nor strangers were given: compared with each
        other, people would get each other's names, and drawn faces alone say too little of the
        people to keep where the pictures are photographs. With a retain set that names fewer people
        than population=nearest compares with, it is population=kept. A number of steps that was
        set is not multiplied by `alike_steps`. See `Method.adapt_to`.

        Raises:
            ConfigError: If supervision=full or tier=language was set, and no sample has an answer.
        """
        method, notes = self, []
        if not any(s.answer for s in data.forget):
            if self.changes_language or (self.supervision == "full" and "supervision" in given):
                raise self._without_answers()
            if "supervision" not in given:
                notes.append(
                    "the forget set has no answers: supervision=features, so language-model "
                    "weights are not read."
                )
            method = replace(method, supervision="features")
        if "steps" in given and "alike_steps" not in given:
            method = replace(method, alike_steps=1.0)
        method, why = method.replace_missing(data, given)
        notes += why
        concepts = {s.concept for s in data.forget if s.picture is not None}
        if len(concepts) > 1 and method.population == "forget":
            notes.append(RENAMES)
        if few := few_photographs(data.forget):
            notes.append(few_note(few))
        return method, notes

    def replace_missing(self, data: Data, given: Collection[str] = ()) -> tuple[VKD, list[str]]:
        """Compares people with whom the data has; see `Method.replace_missing`."""
        if self.erase != "anonymous" or "population" in given:
            return self, []
        population, notes = available_population(self.population, data)
        return replace(self, population=population), notes

    def rate_share(self, data: Data) -> float:
        """Smaller where one or two people are to be forgotten; see `Method.rate_share`."""
        people = group_samples([s for s in data.forget if s.picture])
        return share_of_people(len({*people.values()})) if self.scale_erase else 1.0

    def validate(self, data: Data, settings: TrainingSettings, vlm: VLM | None = None) -> None:
        """Also refuses fields that contradict each other or the data; see `Method.validate`."""
        if self.erase == "stranger" and not data.strangers:
            raise DataError(
                "erase=stranger needs pictures of people the model was never trained on: "
                "--strangers PATH. Or type --set erase=neutral."
            )
        super().validate(data, settings, vlm)
        if self.trains not in ("visual", "encoder", "projector"):
            raise ConfigError(
                f"vkd freezes the language part, so trains={self.trains} is not allowed. Allowed: "
                "visual, encoder, projector."
            )
        if self.erase == "anonymous" or self.population != "nearest":
            refuse_population(self.population, data)
        if self.cache is not None:
            refuse_small(Path(self.cache))
        if self.reads_language and not any(s.answer and s.picture for s in data.forget):
            raise self._without_answers()
        if settings.lora and (self.saliency_fraction or self.prune):
            raise ConfigError(
                "LoRA trains none of the weights that saliency_fraction and prune mean. Type "
                "lora=0."
            )

    def _without_answers(self) -> ConfigError:
        field, less = ("tier", "visual") if self.changes_language else ("supervision", "features")
        return ConfigError(
            f"{field}={getattr(self, field)} needs questions and answers about the forget "
            f"pictures, and the forget set has none. Type --{field} {less}, or give a table with "
            "columns image, question, answer, concept."
        )

    def train(self, vlm: VLM, data: Data, trainer: Trainer) -> TrainingResult:
        """Changes weights in place: those of the visual part, with tier=language also the LLM's.

        See `Method.train`.
        """
        if self.changes_language:
            first = unlearn_language(vlm, data, trainer)
            result = replace(self, tier="visual").train(vlm, data, trainer)
            return replace(result, choices={**result.choices, **first.choices}).after(
                "language", first
            )
        settings = trainer.settings
        seed_step(settings.seed, 0)
        forget, retain = self._training_samples(data, settings.seed)
        vlm.model.requires_grad_(False)
        parameters = layer_parameters(vlm, self.trains, self.train_layers)
        # Adapters leave the weights as they are; pruning also edits what is not trained.
        edited = vlm.parameters("visual") if self.prune else {}
        teacher = vlm.frozen_copy(own=edited or (() if settings.lora else parameters))
        teacher.evict_after_forward()
        prefix = () if self.prune or self.reads_language else frozen_prefix(vlm, parameters)
        generated = generated_samples(forget) if self.population == "generated" else []
        retain = [*retain, *generated]
        distillation = self.prepare(teacher, forget, retain, data.strangers, prefix, generated)
        target = distillation.target
        scaled = target if isinstance(target, AnonymousTarget) and self.scale_erase else None
        if scaled is not None and scaled.alike and settings.steps == self.defaults["steps"]:
            steps = round(self.alike_steps * settings.steps)
            trainer = replace(trainer, settings=replace(settings, steps=steps))
        masks = gradient_masks(
            vlm,
            forget,
            retain,
            parameters,
            answer_probes if self.reads_language else picture_probes,
            prune=self.prune,
            fraction=self.saliency_fraction,
        )
        adapters = trainer.add_adapters(vlm, parameters)
        trained = dict(parameters if adapters is None else adapters.parameters)

        def step(number: int) -> dict[str, Tensor]:
            batch = batches(number)
            vkd = self if batch.answers else replace(self, supervision="features")
            if batch.attack_steps and vkd._forgets:
                gradient_after_relearning(
                    trained,
                    inner_attack(vlm, batch.attack, batch.attack_steps, teacher),
                    lambda: vkd._forget_loss(vlm, batch.forget, distillation),
                    self.relearn_lr or settings.lr,
                    trainer.gradient_scale,
                )
            return vkd.loss(vlm, batch.forget, batch.retain, teacher, distillation)

        release_freed_memory()
        with trainer.prefetch(vlm, self._batch_maker(vlm, trainer, forget, retain)) as batches:
            edit = gradient_mask(masks) if masks else None
            result = trainer.fit(vlm, trained, step, adapters=adapters, gradient=edit)
        choices: dict[str, Any] = {"mask": {"visual": mask_counts(masks)}} if masks else {}
        note = population_note(self.population)
        choices |= {"population": note} if note else {}
        if scaled is not None:
            choices["erase_weight"] = scaled.weight
        if self.widen and few_photographs(data.forget, self.widen):
            choices["widened_to"] = self.widen
        return replace(result, choices=choices)

    def prepare(
        self,
        teacher: VLM,
        forget: Sequence[Sample],
        retain: Sequence[Sample],
        strangers: Sequence[Picture] = (),
        prefix: Sequence[str] = (),
        generated: Sequence[Sample] = (),
    ) -> Distillation:
        """Returns layer statistics and erase targets, computed once from the frozen teacher.

        Args:
            teacher: The frozen start model.
            forget: Samples with pictures to forget.
            retain: Samples with pictures to keep.
            strangers: Pictures of people that the model was never trained on.
            prefix: Names of the encoder layers below the first trained one.
            generated: The pictures of population=generated, which are composed if not given.
        """
        layers = choose_layers(teacher, ["all"])
        population, others = (None if self.population == "forget" else retain), strangers
        if self.population == "generated":
            population, others = generated or generated_samples(forget), ()
        pictures = population_pictures(forget, population, others)
        statistics = LayerStatistics.of_pictures(teacher, pictures, layers)
        return Distillation(
            layers,
            statistics,
            self._erase_target(teacher, forget, retain, strangers, statistics),
            FeatureCache(teacher, self.cache),
            tuple(prefix),
        )

    def loss(
        self,
        student: VLM,
        forget: Batch,
        retain: Batch | None,
        teacher: VLM | None,
        distillation: Distillation | None = None,
    ) -> dict[str, Tensor]:
        """Returns the output-level and distillation terms; see the class.

        Args:
            student: The model being unlearned.
            forget: A batch of samples to forget.
            retain: A batch of samples to keep.
            teacher: The frozen start model.
            distillation: Layer statistics and erase targets; by default the statistics are those of
                `retain`, and every target is their mean.
        """
        if teacher is None or retain is None:
            raise ConfigError("vkd needs a teacher and a retain batch.")
        distillation = distillation or self._from_batch(teacher, retain)
        terms = self._forget_terms(student, forget, distillation)
        inputs = student.visual_inputs(retain)
        layers = distillation.layers
        outputs: dict[str, Tensor] = {}
        if self.w_keep > 0:
            outputs = distillation.teacher_outputs(inputs, layers, self.augment == 0)
        features, logits = student_features(
            student,
            retain,
            layers,
            distillation.replay(outputs),
            with_logits=self.reads_language and self.w_retain > 0,
        )
        if logits is not None:
            terms["retain"] = self.w_retain * nll(logits, retain.labels)
        if self.w_keep > 0:
            target = split_by_picture(teacher, outputs, inputs)
            distance = self._distance(features, target, layers, distillation.statistics)
            terms["keep"] = self.w_keep * distance.mean()
        return terms

    def _forget_terms(
        self, student: VLM, batch: Batch, distillation: Distillation
    ) -> dict[str, Tensor]:
        """Returns the terms on a forget batch: "forget" (output level) and "erase"."""
        teacher, target = distillation.teacher, distillation.target
        inputs = student.visual_inputs(batch)
        layers = choose_layers(student, ["projector"])
        with_logits = self.reads_language and self.w_forget > 0
        outputs: dict[str, Tensor] = {}
        if self.w_erase > 0 and target.reads_teacher and not with_logits:
            # "push" draws noise for all layers, whichever are erased.
            wanted = distillation.layers if self.erase == "push" else layers
            outputs = distillation.teacher_outputs(inputs, wanted, self.augment == 0)
        features, logits = student_features(
            student, batch, distillation.layers, distillation.replay(outputs), with_logits
        )
        terms: dict[str, Tensor] = {}
        if logits is not None:
            # One pass of the teacher gives its answers and its features.
            with torch.no_grad(), capture(teacher, distillation.layers) as outputs:
                before = sequence_logps(teacher.logits(batch), batch.labels)
            logps = sequence_logps(logits, batch.labels)
            terms["forget"] = self.w_forget * npo_loss(logps, before, BETA)
        if self.w_erase > 0:
            with torch.no_grad():
                known = split_by_picture(teacher, outputs, inputs)
                goal = target(inputs, batch.picture_ids, known)
            distance = self._distance(features, goal, layers, distillation.statistics)
            terms["erase"] = self.w_erase * target.penalty(distance).mean()
        return terms

    def _forget_loss(self, student: VLM, batch: Batch, distillation: Distillation) -> Tensor:
        terms = self._forget_terms(student, batch, distillation)
        return sum(terms.values(), torch.zeros(()))

    def _erase_target(
        self,
        teacher: VLM,
        forget: Sequence[Sample],
        retain: Sequence[Sample],
        strangers: Sequence[Picture],
        statistics: LayerStatistics,
    ) -> EraseTarget:
        groups, erased = group_samples(forget), choose_layers(teacher, ["projector"])
        if self.erase == "anonymous":
            others = retain if self.population == "nearest" else None
            traits = traits_of_groups(teacher, forget, groups, erased, statistics, others)
            weight = weight_of_traits(traits, statistics) if self.scale_erase else 1.0
            return AnonymousTarget(traits, groups, self.erase_strength, weight)
        if self.erase == "stranger":
            return StrangerTarget(teacher, erased, strangers, groups)
        if self.erase == "push":
            return PushTarget(statistics.variance)
        return NeutralTarget(statistics.mean, teacher.family.aligned)

    def _from_batch(self, teacher: VLM, batch: Batch) -> Distillation:
        """Returns statistics over one batch, with "push" or else the mean as the erase target."""
        layers = choose_layers(teacher, ["all"])
        inputs = teacher.visual_inputs(batch)
        statistics = LayerStatistics.of_inputs(teacher, [inputs], layers)
        target: EraseTarget = NeutralTarget(statistics.mean, teacher.family.aligned)
        if self.erase == "push":
            target = PushTarget(statistics.variance)
        return Distillation(layers, statistics, target, FeatureCache(teacher, memory=0.0))

    def _training_samples(self, data: Data, seed: int) -> tuple[list[Sample], list[Sample]]:
        """Returns the forget and retain samples that are trained on."""
        # A text-only sample has no gradient in the visual part.
        forget, retain = ([s for s in side if s.picture] for side in (data.forget, data.retain))
        if not self.reads_language:
            forget, retain = one_sample_per_picture(forget), one_sample_per_picture(retain)
        return [*forget, *widened(forget, self.widen, seed)], retain

    @property
    def _forgets(self) -> bool:
        """Whether a forget batch has any loss; see `_forget_terms`."""
        return (self.reads_language and self.w_forget > 0) or self.w_erase > 0

    @property
    def _batch_maker(self) -> BatchMaker:
        shared = {item.name: getattr(self, item.name) for item in fields(BatchMaker)[1:]}
        return BatchMaker(self.reads_language, **shared)

    def _distance(
        self,
        features: Features,
        target: Features,
        layers: Sequence[str],
        statistics: LayerStatistics,
    ) -> Tensor:
        """Returns the distance of each picture [pictures], averaged over layers."""
        variance = statistics.variance
        distances = [scaled_distance(features[n], target[n], variance[n]) for n in layers]
        return torch.stack(distances).mean(0)
