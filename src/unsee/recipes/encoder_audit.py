"""The plan of `unsee audit` on an image encoder: photographs are compared, and nothing is asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from unsee.artifacts.stack import patch_folders
from unsee.data.overlaps import overlap_notes
from unsee.errors import ConfigError, DataError
from unsee.recipes.attack_data import AUDIT
from unsee.recipes.benchmark_defaults import measure_directions
from unsee.recipes.evaluate import EvaluationRequest
from unsee.recipes.job import NO_ANSWERS, Job
from unsee.recipes.photographs import hold_out, runnable_attacks
from unsee.recipes.plan import HELD_FORGET
from unsee.recipes.sources import read_samples
from unsee.training.launcher import is_main_process
from unsee.types import Data, Sample

LOGGER = logging.getLogger("unsee")

# Share of each person's photographs that score the attacks, where none are given for that.
HELD_OUT = 0.2

# The attacks that compare photographs alone, as options.
ATTACKS = "--attack prototype --attack probe --attack difference --attack relearn_features"


def encoder_audit(request: EvaluationRequest, command: str) -> Job:
    """A job that compares and attacks an image encoder as it is.

    Args:
        request: What is asked for, with attacks.
        command: What to type to do it again.

    Raises:
        ConfigError: If the request has what needs answers, or no attack of it can be made.
        DataError: If there is nobody to compare with.
    """
    forget = _photographs(request, "forget", request.splits.get("forget"))
    retain = _photographs(request, "retain", request.retain or request.splits.get("retain"))
    if request.non_members is not None:
        raise ConfigError(f"model {request.model}: {NO_ANSWERS}. Leave --non-members out.")
    if len({s.concept for s in retain if s.concept}) < 2:
        raise DataError(
            "an image encoder is audited by comparing photographs with those of other people: "
            "give two or more, --retain FOLDER, with a subfolder for each."
        )
    given = {
        name: _photographs(request, name, request.splits[name])
        for name in ("forget_holdout", "retain_holdout")
        if name in request.splits
    }
    data, splits, notes = hold_out(Data(forget, retain), HELD_OUT, 0)
    for name, samples in given.items():
        # What is given to score with takes the place of what would be held out.
        side = name.removesuffix("_holdout")
        data = Data(
            forget if side == "forget" else data.forget,
            retain if side == "retain" else data.retain,
        )
        splits[name] = list(samples)
    attacks, left_out, attack_notes = runnable_attacks(
        request.attacks, splits, encoder=True, options=AUDIT
    )
    if not attacks:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(
            f"no attack can be made on an image encoder ({reasons}). Type {ATTACKS}; difference "
            "also needs --target DIR, the encoder before unlearning."
        )
    if is_main_process():
        for note in (*notes, *attack_notes, *overlap_notes(forget, retain)):
            LOGGER.warning(note)
    return Job(
        kind="audit",
        command=command,
        recipe=request.text(command),
        data=data,
        splits=splits,
        attacks=attacks,
        better=measure_directions(splits, HELD_FORGET),
        forgetting=HELD_FORGET,
        patches=patch_folders(request.patch),
        open_questions=(),
        encoder=True,
        attacks_left_out=left_out,
        **request.job_fields(),
    )


def _photographs(request: EvaluationRequest, name: str, path: str | None) -> Sequence[Sample]:
    """The photographs of a set; none if it is not given.

    Raises:
        ConfigError: If they have answers.
    """
    samples = read_samples(path, name, {}) if path is not None else []
    if any(sample.answer for sample in samples):
        raise ConfigError(
            f"model {request.model}: {NO_ANSWERS}, and the {name} set {path} has some. Give "
            "photographs alone: a folder with a subfolder for each person."
        )
    return samples
