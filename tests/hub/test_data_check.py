"""Data sets are listed before they are read, from `support.hub` and from folders."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.cli import unsee
from support.hub import LocalHub
from support.published import fiubench, mllmu, safeeraser, umu
from unsee.cli import main


def write_table(path: Path, columns: dict[str, list[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_data_check_recognizes_a_published_benchmark_of_the_hub(
    hub: LocalHub, tmp_path: Path
) -> None:
    mllmu(tmp_path)
    commit = hub.add("lab/data", tmp_path, kind="dataset")
    found = unsee("data", "check", "lab/data", "--json")
    assert (found["data"], found["commit"]) == ("lab/data", commit)
    best = found["looks_like"][0]
    assert (best["name"], best["absent"], best["problems"]) == ("mllmu", [], [])
    assert best["check"].startswith("unsee data check 'mllmu@lab/data?ratio=")
    assert not [request for request in hub.requests if "/resolve/main/" in request]
    for table in found["tables"]:
        rows = sum(pq.read_metadata(tmp_path / file).num_rows for file in table["files"])
        assert rows == table["rows"] and not table["problem"]
        if "image" in table["columns"]:
            assert table["columns"]["image"] == "image"
    assert unsee(*best["check"].replace("'", "").split()[1:], "--json")["problems"] == []


@pytest.mark.parametrize("write, name", [(fiubench, "fiubench"), (safeeraser, "safeeraser")])
def test_data_check_recognizes_the_files_of_a_folder(
    tmp_path: Path, write: Callable[[Path], None], name: str
) -> None:
    write(tmp_path)
    shown = unsee("data", "check", tmp_path)
    assert f"looks like {name}: 2 of the 2 files that it reads are there." in shown
    assert f"type: unsee data check '{name}@{tmp_path}" in shown


def test_data_check_reads_only_footers_of_the_hub(hub: LocalHub, tmp_path: Path) -> None:
    noise = [bytes(i % 251 for i in range(n, n + 60_000)) for n in range(40)]
    big = tmp_path / "big.parquet"
    pq.write_table(pa.table({"image": noise}), big, compression="none", use_dictionary=False)
    hub.add("lab/data", {"data/train-00000-of-00001.parquet": big.read_bytes()}, kind="dataset")
    found = unsee("data", "check", "hub:lab/data", "--json")
    (table,) = found["tables"]
    assert (table["config"], table["split"], table["rows"]) == ("default", "train", 40)
    assert table["columns"] == {"image": "binary"}
    assert 0 < hub.sent < big.stat().st_size / 10
    assert not found["looks_like"]


def test_data_check_names_the_nearest_column(hub: LocalHub, tmp_path: Path) -> None:
    umu(tmp_path)
    for path in tmp_path.rglob("*.parquet"):
        table = pq.read_table(path)
        names = ["Clozes" if name == "Cloze" else name for name in table.column_names]
        pq.write_table(table.rename_columns(names), path)
    hub.add("lab/data", tmp_path, kind="dataset")
    found = json.loads(_output("data", "check", "lab/data", "--json", code=2))
    assert found["looks_like"][0]["name"] == "umu"
    assert any("column 'Cloze' is missing; the nearest is 'Clozes'" in p for p in found["problems"])


def test_data_check_tells_which_columns_a_table_of_samples_lacks(tmp_path: Path) -> None:
    write_table(tmp_path / "people.parquet", {"image": ["1.png"], "name": ["Ada"]})
    write_table(tmp_path / "others.parquet", {"image": ["1.png"], "concept": ["Ada"]})
    (tmp_path / "rows.jsonl").write_text('{"image": "1.png", "question": "Who?"}\n' * 3)
    shown = unsee("data", "check", tmp_path)
    assert "default/rows: 3 rows (1 file, 0.0 MB): image (str), question (str)" in shown
    assert "people.parquet: column 'concept' is missing; it has image, name. Did you mean" in shown
    assert "others.parquet: has the columns of samples of your own." in shown
    assert "looks like no published benchmark" in shown


def test_data_check_reads_the_splits_that_a_card_declares(hub: LocalHub, tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", {"image": ["1.png"], "concept": ["Ada"]})
    card = (
        "---\nconfigs:\n- config_name: faces\n  data_files:\n  - split: known\n    path: a*\n---\n"
    )
    hub.add(
        "lab/data", {"a.parquet": path.read_bytes(), "README.md": card.encode()}, kind="dataset"
    )
    (table,) = unsee("data", "check", "lab/data", "--json")["tables"]
    assert (table["config"], table["split"]) == ("faces", "known")


def test_data_check_of_the_hub_at_a_revision(hub: LocalHub, tmp_path: Path) -> None:
    fiubench(tmp_path)
    commit = hub.add("lab/data", tmp_path, kind="dataset")
    hub.add("lab/data", {"README.md": b"emptied"}, kind="dataset")
    given = ("data", "check", "lab/data", "--hub-revision", commit, "--json")
    found = unsee(*given)
    assert (found["commit"], found["data"]) == (commit, f"lab/data@{commit}")
    assert found["looks_like"][0]["name"] == "fiubench"
    assert "1 file, 0.0 MB" in unsee("data", "check", "lab/data")
    message = unsee("evaluate", "--model", "m", "--data", "hub:lab/data", code=2)
    assert "Else type `hf download lab/data --repo-type dataset --local-dir DIR`" in message
    message = unsee("data", "check", "lab/data", "--retain", tmp_path, code=2)
    assert "--retain is compared sample by sample" in message


def test_data_check_of_nothing_on_the_hub_says_what_was_tried(hub: LocalHub) -> None:
    message = unsee("data", "check", "lab/data", code=2)
    assert "data set 'lab/data': no such folder, and no data set of that name at" in message
    hub.add("lab/data", {"train.parquet": b"PAR1 broken"}, kind="dataset")
    shown = _output("data", "check", "lab/data", code=2)
    assert "unusable: train.parquet: is not a readable parquet file" in shown


def _output(*words: str, code: int) -> str:
    """Standard output of a command that ends with an exit code."""
    before, output = sys.argv, io.StringIO()
    sys.argv = ["unsee", *words]
    try:
        with redirect_stdout(output), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    assert ended.value.code == code
    return output.getvalue()
