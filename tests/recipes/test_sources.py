"""Sources of samples and checkpoints, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee.benchmarks import BENCHMARKS, CheckpointRole
from unsee.benchmarks.pocket import CHECKPOINTS, Pocket
from unsee.errors import ConfigError, DataError, UnknownNameError
from unsee.recipes.sources import read_samples, shipped_checkpoint
from unsee.recipes.specs import Spec, parse_spec


@pytest.mark.parametrize("role", CHECKPOINTS)
def test_shipped_checkpoint_finds_every_role_of_a_benchmark(role: CheckpointRole) -> None:
    assert shipped_checkpoint(f"pocket:{role}") == str(Pocket().checkpoint(role))


@pytest.mark.parametrize(
    "source", ["models/pocket", "llava-hf/llava-1.5-7b-hf", "gpt2", r"C:\llava"]
)
def test_shipped_checkpoint_leaves_folders_and_hub_ids_as_they_are(source: str) -> None:
    assert shipped_checkpoint(source) == source


def test_shipped_checkpoint_refuses_what_no_benchmark_ships() -> None:
    with pytest.raises(UnknownNameError, match="unknown pocket model 'targt'. Did you mean"):
        shipped_checkpoint("pocket:targt")
    with pytest.raises(ConfigError, match="benchmark mllmu ships no models"):
        shipped_checkpoint("mllmu:target")


def test_parse_spec_reads_forget_ratio_as_ratio() -> None:
    assert parse_spec("mllmu:forget@DIR?forget_ratio=5") == Spec("mllmu", "forget", "DIR", "5")
    assert parse_spec("mllmu@DIR?ratio=5&shots=0") == Spec("mllmu", "", "DIR", "5", 0)


def test_checkpoint_exists_for_exactly_the_roles_a_benchmark_declares() -> None:
    declared = {name: kind.checkpoints for name, kind in BENCHMARKS.items() if kind.checkpoints}
    assert declared == {"pocket": CHECKPOINTS}


@pytest.mark.parametrize("text", ["xx:", "xx:forget@", "pocket:forget@"])
def test_read_samples_refuses_names_that_no_file_can_have(text: str) -> None:
    with pytest.raises(DataError, match="more than 255 bytes") as caught:
        read_samples(text + "a" * 300)
    assert len(str(caught.value)) < 500


def test_parse_spec_takes_a_name_that_no_file_can_have_for_a_benchmark() -> None:
    with pytest.raises(UnknownNameError, match="unknown benchmark 'xx'"):
        parse_spec("xx:" + "a" * 300)


def test_function_of_a_module_that_is_spelled_like_a_benchmark_is_no_misspelt_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match="pocket"):
        shipped_checkpoint("rocket:load")
    (tmp_path / "rocket.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert shipped_checkpoint("rocket:load") == "rocket:load"
