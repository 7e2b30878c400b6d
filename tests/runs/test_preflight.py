"""Checks of attacks before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from unsee.attacks import AttackerData
from unsee.attacks.membership import Membership
from unsee.attacks.probe import Probe
from unsee.attacks.quantize import Quantize
from unsee.attacks.relearn import Relearn
from unsee.errors import ConfigError, DataError
from unsee.runs.preflight import check_attack
from unsee.types import Data


def test_check_attack_names_what_is_missing(data: Data) -> None:
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
