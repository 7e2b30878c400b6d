"""Distributed training: several processes, DeepSpeed, and settings that are refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.processes import finish, in_two
from support.training import assert_near, unlearned
from unsee.artifacts.manifest import TENSORS
from unsee.errors import ConfigError, TrainingError
from unsee.models.vlm import VLM
from unsee.training.distributed import DistributedContext, require_supported
from unsee.training.loop import STATE
from unsee.training.settings import TrainingSettings
from unsee.types import Data

SETTINGS = TrainingSettings(steps=3, batch_size=3, accumulate=2, lr=1e-3, warmup=0.0, save_every=2)


CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "vkd": ("vkd", {"relearn_steps": 0}),
    "relearning-aware": ("vkd", {"relearn_steps": 1, "relearn_every": 1}),
    "grad_diff": ("grad_diff", {"trains": "all"}),
    "lora": ("grad_diff", {"trains": "language"}),
}


WAYS = dict.fromkeys(CASES, ("ddp", "fsdp")) | {"relearning-aware": ("ddp",)}


MORE: Mapping[str, dict[str, Any]] = {"lora": {"lora": 4, "checkpointing": True}}


class Keep:
    """Progress that copies the state of a run after step 2."""

    def __init__(self, state: Path, copy: Path) -> None:
        self.state, self.copy = state, copy

    def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        if step == 2:
            self.copy.mkdir(parents=True)
            for name in (STATE, "log.jsonl"):
                shutil.copy(self.state / name, self.copy / name)


def test_two_processes_give_the_result_of_one(
    tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    """Also when a run resumes with another number of processes, or with sharded weights."""
    alone = {}
    for case, (name, fields) in CASES.items():
        state = tmp_path / case / "one"
        keep = Keep(state, tmp_path / case / "fsdp-from-one")
        settings = replace(SETTINGS, **MORE.get(case, {}))
        alone[case] = unlearned(tiny_folder, data, name, settings, state, keep, **fields)

    def work(rank: int) -> None:
        for case, (name, fields) in CASES.items():
            for way in (*WAYS[case], "fsdp-from-one") if case == "vkd" else WAYS[case]:
                parallel, state = way.partition("-")[0], tmp_path / case
                settings = replace(SETTINGS, parallel=parallel, **MORE.get(case, {}))
                half = Keep(state / way, state / "one-from-fsdp")
                keep = half if (case, way) == ("vkd", "fsdp") else None
                found = unlearned(tiny_folder, data, name, settings, state / way, keep, **fields)
                save_file(found, tmp_path / f"{case}-{way}-{rank}")

    assert in_two(work) == [0, 0]
    start = VLM.load(tiny_folder).parameters()
    for case, (name, fields) in CASES.items():
        assert any(not torch.equal(alone[case][n], start[n]) for n in start)
        results = {p.name: load_file(p) for p in tmp_path.glob(f"{case}-*-[01]")}
        state = tmp_path / case / "one-from-fsdp"
        if state.exists():
            results["one-from-fsdp"] = unlearned(tiny_folder, data, name, SETTINGS, state, **fields)
        assert len(results) >= 2 * len(WAYS[case])
        for way, found in results.items():
            for tensor, value in alone[case].items():
                assert torch.allclose(found[tensor], value, atol=2e-5), (way, tensor)
        lines = (tmp_path / case / "ddp" / "log.jsonl").read_text().splitlines()
        own = (tmp_path / case / "one" / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
        for line, other in zip(lines, own, strict=True):
            assert json.loads(line)["terms"] == pytest.approx(json.loads(other)["terms"], rel=1e-4)


def test_shutdown_returns_in_every_process(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        context = DistributedContext.initialize(SETTINGS, "cpu")
        assert (context.rank, context.world_size) == (rank, 2)
        context.shutdown()
        (tmp_path / str(rank)).touch()

    assert in_two(work) == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_killed_process_ends_the_others_with_a_training_error(
    tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    class Die:
        def update(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
            if step == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    def work(rank: int) -> None:
        with pytest.raises(TrainingError, match="another process has ended"):
            unlearned(tiny_folder, data, "vkd", SETTINGS, tmp_path, Die())

    # Process 0 kills itself when it reports progress; process 1 raises the error and exits with 0.
    assert in_two(work) == [-signal.SIGKILL, 0]


ACCELERATE = [
    sys.executable,
    "-m",
    "accelerate.commands.launch",
    "--num_processes",
    "2",
    "--use_fsdp",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
    "--main_process_port",
    "0",
    "-m",
    "unsee",
]


@pytest.mark.slow
def test_launched_job_resumes_in_one_process(tiny_folder: Path, data: Data, tmp_path: Path) -> None:
    for name, samples in (("forget", data.forget), ("retain", data.retain)):
        rows = [
            {
                "image": s.picture.source,
                "question": s.question,
                "answer": s.answer,
                "concept": s.concept,
                "task": s.task,
            }
            for s in samples
            if s.picture is not None
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)

    def command(out: str) -> list[str]:
        return [
            "unlearn",
            "--model",
            str(tiny_folder),
            "--forget",
            str(tmp_path / "forget.jsonl"),
            "--retain",
            str(tmp_path / "retain.jsonl"),
            "--out",
            str(tmp_path / out),
            "--json",
            "--device",
            "cpu",
            "--set",
            "batch_size=2",
            "--set",
            "accumulate=2",
            "--set",
            "save_every=5",
            "--set",
            "steps=80",
        ]

    log = tmp_path / "broken" / "train.jsonl"
    with subprocess.Popen(
        [*ACCELERATE, *command("broken")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as job:
        while job.poll() is None and not (log.exists() and log.read_text().count("\n") >= 7):
            time.sleep(0.02)
        started = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        (worker,) = [
            int(pid)
            for pid in started
            if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ]
        os.kill(worker, signal.SIGKILL)
        said, _ = job.communicate(timeout=100)
    assert job.returncode != 0
    assert "SIGKILL" in said
    assert not (tmp_path / "broken" / "summary.json").exists()
    finish(command("broken"), tmp_path / "logs")
    finish(command("whole"), tmp_path / "logs")
    ours, theirs = (load_file(tmp_path / n / "patch" / TENSORS) for n in ("broken", "whole"))
    assert all(torch.allclose(ours[name], value, atol=1e-4) for name, value in theirs.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_deepspeed_gives_the_result_of_one_process(
    tiny_folder: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeRO 2 can resume the state of one process, and one process the state of ZeRO 2."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    keep = Keep(tmp_path / "one", tmp_path / "zero-from-one")
    alone = unlearned(tiny_folder, data, "vkd", SETTINGS, tmp_path / "one", keep)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")

    def work(rank: int) -> None:
        half = Keep(tmp_path / "zero", tmp_path / "one-from-zero")
        for way, keep in (("zero", half), ("zero-from-one", None)):
            found = unlearned(tiny_folder, data, "vkd", SETTINGS, tmp_path / way, keep)
            save_file(found, tmp_path / f"{way}-{rank}")

    assert in_two(work) == [0, 0]
    results = {path.name: load_file(path) for path in tmp_path.glob("zero*-[01]")}
    assert len(results) == 4
    state = tmp_path / "one-from-zero"
    results["one-from-zero"] = unlearned(tiny_folder, data, "vkd", SETTINGS, state)
    for found in results.values():
        assert_near(alone, found)


REFUSED: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({"precision": "fp16"}, {}, "precision=fp16 needs a GPU"),
    ({"attention": "flash_attention_2"}, {}, "attention=sdpa"),
    ({"compile": True}, {"CXX": "no-such-compiler"}, "a C++ compiler"),
    ({"accumulate": 3}, {"WORLD_SIZE": "2"}, "Type accumulate=2"),
    ({}, {"WORLD_SIZE": "2", "ACCELERATE_USE_DEEPSPEED": "true"}, "unsee[deepspeed]"),
]


@pytest.mark.parametrize(("fields", "around", "told"), REFUSED)
def test_require_supported_refuses_settings_that_cannot_work(
    fields: dict[str, Any], around: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ConfigError, match=re.escape(told)):
        require_supported(replace(SETTINGS, **fields), "cpu")
