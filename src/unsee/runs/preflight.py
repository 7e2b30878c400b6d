"""Checks before hours of work: what can be refused is refused before weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unsee.attacks import AttackerData, Chain, label, required_data
from unsee.errors import ConfigError, DataError, ModelError, require_extra
from unsee.metrics import select_metrics
from unsee.models.checkpoint import resolve
from unsee.models.dry_run import check_inputs
from unsee.models.validation import check_checkpoint
from unsee.models.vlm import VLM
from unsee.recipes.captions import photographs_alone
from unsee.recipes.job import Job
from unsee.recipes.resume import same_recipe
from unsee.records.folder import RunFolder
from unsee.records.reader import Run, read_run
from unsee.training.tracking import require_trackers
from unsee.types import Sample

# What an attack lacks, by the need that it declares in `Attack.needs`.
MISSING = {
    "attacker_samples": "forget samples to work from. Give them with --forget",
    "answers": "forget samples with questions and answers. Give a table with columns image, "
    "question, answer, concept",
    "retain": "pictures of people who were not forgotten. Give them with --retain",
    "non_members": "samples about people that no model was trained on. Give them with "
    "--non-members",
    "target": "the model before unlearning. Give it with --target",
}


def finished_run(job: Job, out: Path) -> Run | None:
    """Returns the run if the folder holds this very job, finished; None otherwise."""
    return read_run(out) if RunFolder.holds_finished(out, job.recipe, same_recipe) else None


def check_job(job: Job) -> None:
    """Refuses a job that cannot be done as asked; no weights are loaded.

    Raises:
        UnseeError: If an attack, a metric, the method or its training settings do not fit the data,
            or a checkpoint that is needed later is damaged.
    """
    for chain in job.attacks:
        check_attack(chain, job.attacker, job.splits, "target" in job.references)
    if not job.encoder or job.open_questions is None:
        select_metrics(job.metrics, "reference" in job.references, job.encoder)
    require_trackers(job.log_with)
    if job.method is not None:
        job.method.validate(job.data, job.settings)
    for source in job.references.values():
        check_checkpoint(
            resolve(source), whole=not job.visual_only, trust_remote_code=job.trust_remote_code
        )


def check_attack(
    chain: Chain,
    attacker: AttackerData,
    splits: Mapping[str, Sequence[Sample]],
    has_target: bool = True,
) -> None:
    """Refuses attacks that cannot run on the data that an attacker and a run have.

    Args:
        chain: Attacks, one after the other.
        attacker: The attacker's data.
        splits: The samples that the run asks, by split.
        has_target: Whether the run has the model before unlearning.

    Raises:
        ConfigError: If an attack that reads the model stands before another, or an attack needs a
            package that is not installed.
        DataError: If an attack lacks data that it needs, or no question could score it.
    """
    name = label(chain)
    for attack in chain[:-1]:
        if attack.reads:
            raise ConfigError(
                f"'{name}': {attack.name} reads the model and leaves nothing to attack further. "
                "Put it last."
            )
    for attack in chain:
        if attack.requires is not None:
            require_extra(*attack.requires, f"attack '{attack.name}'")
    available = {
        "attacker_samples": bool(attacker.forget),
        "answers": any(s.answer and s.picture is not None for s in attacker.forget),
        "retain": any(s.picture is not None for s in attacker.retain),
        "non_members": bool(attacker.non_members),
        "target": has_target,
    }
    for need in sorted(required_data([chain])):
        if not available[need]:
            raise DataError(f"the attack '{name}' needs {MISSING[need]}, or leave out the attacks.")
    held_out = splits.get("forget_holdout", ())
    if chain[-1].asks and not any(s.picture is not None and s.answer for s in held_out):
        what = "relearning attack" if name == "relearn" else f"attack '{name}'"
        raise DataError(
            f"the {what} is scored on held-out questions about the forget pictures, and "
            "there are none. Give a table with columns image, question, answer, concept, or leave "
            "out the attacks."
        )


def check_model(job: Job, vlm: VLM) -> None:
    """Refuses a loaded model that the job cannot evaluate, train or attack.

    Raises:
        UnseeError: If a task of lm-evaluation-harness cannot ask it, it is quantized and must be
            trained, or its processor refuses a sample.
    """
    if job.suite is not None:
        job.suite.check(vlm)
    if job.method is not None or job.attacks:
        vlm.refuse_training()
    if job.method is not None:
        refuse_broken_weights(vlm)
    data = job.data
    groups = (data.forget, data.retain, data.text_only, job.non_members, *job.splits.values())
    samples = [sample for group in groups for sample in group]
    if job.encoder:
        # Captions are compared with pictures, and answer no question.
        samples = photographs_alone(samples)
    check_inputs(vlm, samples, data.strangers)


def refuse_broken_weights(vlm: VLM) -> None:
    """Refuses to train a model that has weights which are not finite already.

    Raises:
        ModelError: If a loaded weight is infinite or not a number.
    """
    for name, weight in vlm.parameters().items():
        if not weight.is_meta and not bool(weight.isfinite().all()):
            raise ModelError(
                f"model {vlm.source}: the tensor {name} has values that are not finite, before any "
                "training. Download or save the checkpoint again."
            )
