"""Checks of attacks before anything runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unsee.attacks import AttackerData
from unsee.attacks.membership import Membership
from unsee.attacks.probe import Probe
from unsee.attacks.quantize import Quantize
from unsee.attacks.relearn import Relearn
from unsee.errors import ConfigError, DataError, ModelError
from unsee.models.vlm import VLM
from unsee.recipes.attack_data import UNLEARN
from unsee.recipes.components import build_method
from unsee.recipes.job import Job
from unsee.runs.preflight import check_attack, check_job, check_model
from unsee.types import Data


def test_check_attack_names_what_is_missing(data: Data) -> None:
    splits: dict[str, Any] = {"forget_holdout": data.forget}
    with pytest.raises(DataError, match="--non-members"):
        check_attack((Membership(),), AttackerData(data.forget, data.retain), splits)
    with pytest.raises(DataError, match="--retain"):
        check_attack((Probe(),), AttackerData(data.forget), splits)
    # Photographs of strangers alone are no controls for membership.
    unanswered = [replace(sample, answer="") for sample in data.retain]
    with pytest.raises(DataError, match="true answers about people that no model.*--strangers"):
        attacker = AttackerData(data.forget, data.retain, unanswered)
        check_attack((Membership(),), attacker, splits, options=UNLEARN)
    with pytest.raises(ConfigError, match="Put it last"):
        check_attack((Probe(), Quantize()), AttackerData(data.forget, data.retain), splits)
    with pytest.raises(DataError, match="held-out questions.*--forget"):
        check_attack((Quantize(),), AttackerData(data.forget, data.retain), {})


def test_check_attack_names_the_extra_of_a_missing_package(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unsee.errors.find_spec", lambda name: None)
    splits: dict[str, Any] = {"forget_holdout": data.forget}
    with pytest.raises(ConfigError, match=r"attack 'probe' needs sklearn.*unsee\[probe\]"):
        check_attack((Probe(),), AttackerData(data.forget, data.retain), splits)
    check_attack((Relearn(),), AttackerData(data.forget, data.retain), splits)


def evaluation_job(folder: Path, data: Data) -> Job:
    """Questions about what is to be forgotten."""
    return Job("evaluate", "", "", folder, Data([], []), {"forget": data.forget})


def test_check_model_tries_the_processor_on_every_split(
    tiny: VLM, tiny_folder: Path, data: Data
) -> None:
    job = evaluation_job(tiny_folder, data)
    check_model(job, tiny)
    long = replace(data.forget[0], id="row 9", question="Who is this ? " * 200)
    for changed in (
        replace(job, splits={"forget": data.forget, "retain": [long]}),
        replace(job, data=Data(data.forget, [long])),
        replace(job, non_members=[long]),
    ):
        with pytest.raises(DataError, match="row 9 .*: question and answer have"):
            check_model(changed, tiny)


def test_check_model_refuses_to_train_weights_that_are_not_finite(
    tiny: VLM, tiny_folder: Path, data: Data
) -> None:
    name, weight = next(iter(tiny.parameters("language").items()))
    weight.data.view(-1)[3] = float("nan")
    job = evaluation_job(tiny_folder, data)
    check_model(job, tiny)
    with pytest.raises(ModelError, match=f"{name} has values that are not finite, before any"):
        check_model(replace(job, method=build_method("vkd", {}), data=data), tiny)


def test_check_job_looks_at_the_references_first(
    tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    reference = Path(shutil.copytree(tiny_folder, tmp_path / "reference"))
    job = replace(evaluation_job(tiny_folder, data), references={"reference": reference})
    check_job(job)
    config = json.loads((reference / "config.json").read_text("utf-8"))
    config["text_config"]["num_hidden_layers"] = 1
    (reference / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match=r"reference: .*the weights hold more"):
        check_job(job)
