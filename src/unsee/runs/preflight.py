"""Checks before hours of work: what can be refused is refused before weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unsee.attacks import ATTACKS, AttackerData, Chain, label
from unsee.errors import ConfigError, DataError, ModelError, require_extra
from unsee.metrics import select_metrics
from unsee.models.checkpoint import resolve
from unsee.models.dry_run import check_inputs
from unsee.models.validation import check_checkpoint
from unsee.models.vlm import VLM
from unsee.recipes.attack_data import AUDIT, UNLEARN, available_data, missing_data
from unsee.recipes.captions import photographs_alone
from unsee.recipes.job import Job
from unsee.recipes.resume import same_recipe
from unsee.records.folder import RunFolder
from unsee.records.reader import Run, read_run
from unsee.training.tracking import require_trackers
from unsee.types import Sample


def finished_run(job: Job, out: Path) -> Run | None:
    """Returns the run if the folder holds this very job, finished; None otherwise."""
    return read_run(out) if RunFolder.holds_finished(out, job.recipe, same_recipe) else None


def check_job(job: Job) -> None:
    """Refuses a job that cannot be done as asked; no weights are loaded.

    Raises:
        UnseeError: If an attack, a metric, the method or its training settings do not fit the data,
            or a checkpoint that is needed later is damaged.
    """
    options = AUDIT if job.method is None else UNLEARN
    if job.load_in is not None:
        refuse_white_box(job.attacks, f"load_in={job.load_in} quantizes the model")
    for chain in job.attacks:
        check_attack(chain, job.attacker, job.splits, "target" in job.references, options)
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
    options: Mapping[str, str] = AUDIT,
) -> None:
    """Refuses attacks that cannot run on the data that an attacker and a run have.

    Args:
        chain: Attacks, one after the other.
        attacker: The attacker's data.
        splits: The samples that the run asks, by split.
        has_target: Whether the run has the model before unlearning.
        options: The options that give what is missing, as in `missing_data`.

    Raises:
        ConfigError: If an attack that reads the model stands before another, or an attack needs a
            package that is not installed.
        DataError: If an attack lacks data that it needs, or no question could score it.
    """
    check_chain(chain)
    missing = missing_data(chain, available_data(attacker, splits, has_target), options)
    if missing is not None:
        raise DataError(
            f"attack '{label(chain)}' cannot be made: {missing}, or leave out the attack."
        )


def check_chain(chain: Chain) -> None:
    """Refuses attacks that cannot run on any data.

    Args:
        chain: Attacks, one after the other.

    Raises:
        ConfigError: If an attack that reads the model stands before another, or an attack needs a
            package that is not installed.
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


def check_model(job: Job, vlm: VLM) -> None:
    """Refuses a loaded model that the job cannot evaluate, train or attack.

    Raises:
        UnseeError: If a task of lm-evaluation-harness cannot ask it, it is quantized and must be
            trained, or its processor refuses a sample.
    """
    if job.suite is not None:
        job.suite.check(vlm)
    if job.method is not None:
        vlm.refuse_training()
    if vlm.quantization is not None:
        refuse_white_box(job.attacks, f"model {vlm.source} is quantized")
    if job.method is not None:
        refuse_broken_weights(vlm)
    data = job.data
    groups = (data.forget, data.retain, data.text_only, job.non_members, *job.splits.values())
    samples = [sample for group in groups for sample in group]
    if job.encoder:
        # Captions are compared with pictures, and answer no question.
        samples = photographs_alone(samples)
    check_inputs(vlm, samples, data.strangers)


def refuse_white_box(chains: Sequence[Chain], why: str) -> None:
    """Refuses attacks on quantized weights, but for those that read answers alone.

    Args:
        chains: The attacks.
        why: Why the weights are quantized, for the message.

    Raises:
        ConfigError: If one of them reads or trains weights.
    """
    white = {a.name: None for chain in chains for a in chain if a.access == "white_box"}
    if white:
        allowed = [name for name, kind in ATTACKS.items() if kind.access == "black_box"]
        raise ConfigError(
            f"{why}, and {', '.join(white)} would read or train its weights. Leave load_in out, "
            "give the checkpoint that it was quantized from, or type attacks that ask questions "
            f"alone: {', '.join(allowed)}."
        )


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
