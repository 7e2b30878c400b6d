"""Prefetching: every batch is made once, results do not depend on threads, and threads end."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unsee.errors import ConfigError
from unsee.models.vlm import VLM
from unsee.recipes.components import build_method, build_settings
from unsee.training.prefetch import MAX_THREADS, Prefetcher, threads_for
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Data

SETTINGS = TrainingSettings(steps=3, batch_size=3, accumulate=2, lr=1e-3, warmup=0.0, save_every=0)


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_prefetcher_makes_each_number_once(threads: int, stride: int) -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return 10 * number

    with Prefetcher(make, threads, 9, stride) as ahead:
        found = [ahead(number) for number in range(0, 9, stride)]
    assert found == [10 * number for number in range(0, 9, stride)]
    assert sorted(made) == list(range(0, 9, stride))


def test_prefetcher_works_while_the_caller_is_busy() -> None:
    done = {number: threading.Event() for number in range(3)}
    with Prefetcher(lambda number: done[number].set(), 2, 3) as ahead:
        ahead(0)
        assert done[1].wait(10)
        assert done[2].wait(10)


def test_prefetcher_raises_an_error_where_its_number_is_requested() -> None:
    def make(number: int) -> int:
        if number == 1:
            raise ValueError("no such picture")
        return number

    with Prefetcher(make, 2, 5) as ahead:
        assert ahead(0) == 0
        with pytest.raises(ValueError, match="no such picture"):
            ahead(1)


def test_prefetcher_cancels_unrequested_numbers() -> None:
    made: list[int] = []

    def make(number: int) -> None:
        time.sleep(0.05)
        made.append(number)

    with pytest.raises(KeyboardInterrupt), Prefetcher(make, 1, 1000) as ahead:
        ahead(0)
        raise KeyboardInterrupt
    assert len(made) <= 2
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_threads_for_devices_and_settings() -> None:
    assert threads_for("auto", "cpu") == 0
    assert 0 <= threads_for("auto", "cuda") <= MAX_THREADS
    assert threads_for(4, "cpu") == 4
    assert build_settings("vkd", {"workers": 2}).workers == 2
    with pytest.raises(ConfigError, match="without quotes"):
        build_settings("vkd", {"workers": "2"})
    with pytest.raises(ConfigError, match="workers"):
        build_settings("vkd", {"workers": -1})


@pytest.mark.parametrize("fields", [{"supervision": "features"}, {"relearn_steps": 2}])
def test_prefetcher_threads_do_not_change_the_weights(
    tiny_folder: Path, data: Data, fields: dict[str, Any]
) -> None:
    hashes, before = set(), VLM.load(tiny_folder).hash()
    for workers in (0, 1, 3):
        vlm = VLM.load(tiny_folder)
        settings = replace(SETTINGS, workers=workers)
        build_method("vkd", fields).unlearn(vlm, data, Trainer(settings))
        hashes.add(vlm.hash())
    assert len(hashes) == 1
    assert before not in hashes
