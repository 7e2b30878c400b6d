"""VCUBench: whom to forget, photographs alone and in groups, and its spellings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.cli import unsee
from support.published import NAMES, open_benchmark, png
from unsee.benchmarks import BENCHMARKS
from unsee.errors import ConfigError, DataError, UnknownNameError
from unsee.recipes.specs import parse_spec


def test_vcubench_parts_photographs_by_the_person_to_forget(places: dict[str, Path]) -> None:
    benchmark = open_benchmark(places, "vcubench", ratio="Ada Berg")
    alone, together = benchmark.load("forget"), benchmark.load("group")
    assert [s.question for s in alone] == ["Who is the person in this image?"] * 3
    assert {(s.concept, s.answer) for s in alone} == {("Ada Berg", "Ada Berg")}
    assert [s.answer for s in together] == ["Ada Berg, Bo Lind", "Ada Berg, Cy Moser, Di Novak"]
    assert {s.question for s in together} == {"Who are the people in this image?"}
    assert {s.concept for s in together} == {"Ada Berg"}
    assert together[1].keywords == ("Ada Berg", "Cy Moser", "Di Novak")
    assert {s.concept for s in benchmark.load("retain")} == set(NAMES[1:5])
    assert [(s.concept, len(s.keywords)) for s in benchmark.load("others")] == [
        (None, 2),
        (None, 3),
    ]
    assert parse_spec("vcubench@D?person=A B") == parse_spec("vcubench@D?ratio=A B")


def test_vcubench_forgets_by_default_whom_most_groups_show(places: dict[str, Path]) -> None:
    assert open_benchmark(places, "vcubench").metadata()["ratio"] == "Cy Moser"
    with pytest.raises(UnknownNameError, match="Did you mean 'Ada Berg'"):
        open_benchmark(places, "vcubench", ratio="Ada Bergg").load("forget")
    with pytest.raises(ConfigError, match="no few-shot prompts"):
        open_benchmark(places, "vcubench", shots=1)


def write_json(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    for n, row in enumerate(rows):
        (folder / f"{name}{n}.png").write_bytes(png(n + 50 * len(name)))
        row["file_name"] = f"{name}{n}.png"
    (folder / f"{name}.json").write_text(json.dumps(rows))


def test_vcubench_reads_other_spellings_and_names_the_nearest(tmp_path: Path) -> None:
    write_json(tmp_path, "single", [{"Name": name, "Query": "Who ?"} for name in NAMES[:2]])
    write_json(tmp_path, "group", [{"Identities": list(NAMES[:2]), "Response": "Ada and Bo Lind"}])
    benchmark = BENCHMARKS.get("vcubench").open(tmp_path)
    (alone,), (together,) = benchmark.load("forget"), benchmark.load("group")
    assert (alone.question, alone.answer, alone.concept) == ("Who ?", "Ada Berg", "Ada Berg")
    assert (together.answer, together.keywords) == ("Ada and Bo Lind", NAMES[:2])
    write_json(tmp_path, "group", [{"nmes": list(NAMES[:2])}])
    with pytest.raises(DataError, match=r"group.json, row 1: field 'names' is missing.*'nmes'"):
        BENCHMARKS.get("vcubench").open(tmp_path).load("group")
    write_json(tmp_path, "group", [{"names": " , "}])
    with pytest.raises(DataError, match="field 'names' is empty"):
        BENCHMARKS.get("vcubench").open(tmp_path).load("group")
    write_json(tmp_path, "group", [{"names": NAMES[4]}])
    with pytest.raises(DataError, match="is in both tables, single and group"):
        BENCHMARKS.get("vcubench").open(tmp_path).load("group")
    (tmp_path / "group.json").unlink()
    with pytest.raises(DataError, match="has neither group-00000-of-0000N.parquet nor group.json"):
        BENCHMARKS.get("vcubench").open(tmp_path).load("group")


def test_a_redacted_run_on_vcubench_names_nobody(
    places: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    recipe, out = tmp_path / "job.yaml", tmp_path / "run"
    recipe.write_text(
        f"benchmark: vcubench\ndata: {places['vcubench']}\nforget_ratio: Ada Berg\n"
        f"model: {tiny_folder}\nmethod: vkd\nset: {{steps: 1, batch_size: 2}}\nredact: true\n"
    )
    summary = unsee("run", recipe, "--out", out, "--json")
    assert summary["measures"]["group/vqa/group_f1"]["better"] == "higher"
    texts = [p for p in out.rglob("*") if p.suffix in (".json", ".jsonl", ".html", ".yaml", ".md")]
    assert texts
    assert not [p for p in texts if "Berg" in p.read_text("utf-8")]
