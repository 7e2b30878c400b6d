"""The report: its content, its content without parts of a record, and how it is written."""

from __future__ import annotations

import io
import json
import re
import resource
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.published import IMAGE
from support.report_page import Page, check_page, page_of
from support.report_record import (
    make_run,
    measured,
    sample_scores,
    sample_summary,
    write_json,
)
from unsee import report
from unsee.errors import RunError
from unsee.report import views
from unsee.report.embedded_images import embed
from unsee.types import Picture

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


def test_page_holds_every_part(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    check_page(page)
    for text in (
        "Forgotten Asked about held-out pictures of the 4 people the model answers 2 % right",
        "Ada Berg",
        "This is Mira Holm.",
        "Visual-retain reference",
        "540 3 unscored",
        "The attacker trains the language part (LoRA)",
        "Half recovered after",
        "Outputs equal bit for bit on 64 text-only probes",
        "42 of 120",
        "44 % of 1,836,032",
        "912 MB",
        "erase over the training steps",
        "unsee demo --out runs/demo --seed 0",
        "3d" * 32,
    ):
        assert text in page.text, text
    # 12 attacks, 5 losses, one strip a split and modality; each with a title to be read out.
    charts = [svg for svg in page.named("svg") if svg.get("role") == "img"]
    assert len(charts) == 12 + 5 + 8
    ids = {a.get("id") for _, a in page.tags}
    assert all(set(str(svg["aria-labelledby"]).split()) <= ids for svg in charts)


def test_page_says_how_far_pictures_moved(tmp_path: Path) -> None:
    said = page_of(tmp_path / "a").text
    assert "changed by 1.87 on forget pictures and by 0.09 on retain pictures" in said
    assert "features that are read changed" not in page_of(tmp_path / "b", representation=None).text


def test_page_has_the_same_bytes_for_the_same_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    first = report.write([run], tmp_path / "a.html").read_bytes()
    assert report.write([run], tmp_path / "deep" / "b.html").read_bytes() == first


@pytest.mark.parametrize("part", sorted(sample_summary()))
def test_page_is_complete_without_any_one_part(part: str, tmp_path: Path) -> None:
    check_page(page_of(tmp_path, **{part: None}))


def test_page_names_what_is_absent(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_json(run / "summary.json", {"schema": 1, "name": "bare", "kind": "unlearn"})
    page = Page(report.write([run], tmp_path / "report.html"))
    check_page(page)
    for text in (
        "Not measured",
        "No answers were recorded",
        "Nothing was measured in this run",
        "The relearning attack was not run",
        "No guarantee was checked",
        "The cost was not recorded",
        "No training steps were recorded",
        "The command was not recorded",
    ):
        assert text in page.text, text
    assert not page.named("table")


def test_page_of_a_redacted_run_says_why_no_answer_is_shown(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    bare = {"schema": 1, "name": "bare", "kind": "unlearn", "redacted": True}
    write_json(run / "summary.json", bare)
    page = Page(report.write([run], tmp_path / "report.html"))
    assert "the run is redacted" in page.text
    assert "asked no question" not in page.text


def test_page_of_an_evaluation_has_no_scores_before(tmp_path: Path) -> None:
    page = page_of(
        tmp_path, kind="evaluate", target=None, reference=None, retain_only=None, method=None
    )
    check_page(page)
    assert "This model" in page.text and "no scores before unlearning" not in page.text
    assert "The visual-retain reference was not measured" in page.text


def test_page_shows_nothing_as_markup_that_a_record_says(tmp_path: Path) -> None:
    summary = sample_summary()
    entry = {**summary["gallery"][0], "concept": EVIL, "question": EVIL, "truth": EVIL}
    entry |= {"before": EVIL, "after": EVIL, "reference": EVIL, "picture": EVIL}
    attack = {**summary["attacks"]["relearn"][0], "modules": EVIL}
    reading = {"name": EVIL, "forget": 0.5, "n": 4}
    outcome = {
        "parameters": {EVIL: {"words": EVIL}},
        "models": {"unlearned": {"readings": [reading], "answers": {}}},
    }
    page = page_of(
        tmp_path,
        name=EVIL,
        kind=EVIL,
        command=EVIL,
        created=EVIL,
        gallery=[entry],
        method={"name": EVIL, "parameters": {EVIL: EVIL}, "source": EVIL},
        benchmark={"name": EVIL, EVIL: EVIL},
        measures={f"{EVIL}/vqa/{EVIL}": measured(0.5)},
        attacks={"relearn": [attack], EVIL: [outcome]},
        cost={EVIL: EVIL},
        guarantees={
            "text_identical": True,
            "text_probes": 4,
            "language_part_sha256": EVIL,
            "reason": EVIL,
        },
        provenance={EVIL: EVIL},
    )
    check_page(page)
    assert not page.named("img")
    assert page.text.count("<script>alert('x')</script>") > 15
    line = json.dumps({"step": 1, "loss": 1.0, "terms": {EVIL: 1.0}})
    (tmp_path / "run" / "train.jsonl").write_text(f"{line}\n{line.replace('1,', '2,', 1)}\n")
    page = Page(report.write([tmp_path / "run"], tmp_path / "report.html"))
    check_page(page)
    assert f"{EVIL} over the training steps" in page.text


def test_page_embeds_small_pictures_crisp_and_large_ones_reduced(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    photo = Image.new("RGB", (1600, 1200), (90, 120, 60))
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    photo.save(run / "pictures" / "0.png")
    (run / "pictures" / "0.png").unlink()
    photo.save(run / "pictures" / "0.jpg", exif=exif)
    summary = sample_summary()
    for entry in summary["gallery"][:3]:
        entry["picture"] = str(run / "pictures" / "0.jpg")
    write_json(run / "summary.json", summary)
    page = Page(report.write([run], tmp_path / "report.html"))
    sizes = [(i["width"], i["height"], i.get("class")) for i in page.named("img")]
    assert sizes[0] == ("360", "270", None)
    assert set(sizes[1:]) == {("48", "48", "crisp")}
    assert "a secret place" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_page_a_picture_that_is_gone_or_broken_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "pictures" / "0.png").unlink()
    (run / "pictures" / "1.png").write_bytes(b"not a picture")
    page = Page(report.write([run], tmp_path / "report.html"))
    check_page(page)
    assert "The picture 0.png is no longer there." in page.text
    assert "Picture pictures/1.png: cannot be decoded" in page.text


def test_page_shows_pictures_inside_parquet_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 30, 30)).save(buffer, "PNG")
    cell = {"bytes": buffer.getvalue(), "path": "x.png"}
    rows = [{"image": None, "images": []}] * 3 + [{"image": cell, "images": [None, cell]}]
    data.mkdir()
    kinds = {"image": IMAGE, "images": pa.list_(IMAGE)}
    table = pa.Table.from_pylist(rows, schema=pa.schema(kinds))
    pq.write_table(table, data / "train.parquet", row_group_size=2)
    for name in ("#4.image", "#4", "#4.images[1]"):
        found = embed(str(data / f"train.parquet{name}"), tmp_path)
        assert (found.width, found.height, found.crisp) == (20, 10, True), name
    assert embed("data/train.parquet#4", tmp_path).uri.startswith("data:image/png;base64,")
    for name in ("#3.image", "#9.image", "#4.images[7]", "#4.nothing"):
        assert embed(str(data / f"train.parquet{name}"), tmp_path).absent, name
    assert "no longer there" in embed("gone.parquet#1.image", tmp_path).absent


def test_embed_takes_a_picture_from_outside_by_its_hash_alone(tmp_path: Path) -> None:
    folder, outside = tmp_path / "run", tmp_path / "photos" / "ada.png"
    for path in (folder, outside.parent):
        path.mkdir()
    Image.new("RGB", (20, 10), (200, 30, 30)).save(outside)
    (folder / "link.png").symlink_to(outside)
    sha256 = Picture.from_path(outside).digest
    shown = embed(str(outside), folder, sha256)
    assert (shown.width, shown.height) == (20, 10) and shown.uri
    for name in (str(outside), "../photos/ada.png", "link.png"):
        absent = embed(name, folder)
        assert not absent.uri and "lies outside the run folder" in absent.absent, name
    # Somebody else's picture, of which the record can have no hash, and one that was replaced.
    assert "not the one of the run" in embed(str(outside), folder, "0" * 64).absent
    Image.new("RGB", (20, 10)).save(outside)
    assert "not the one of the run" in embed(str(outside), folder, sha256).absent
    for name in ("/etc/passwd", "/dev/zero", str(tmp_path), str(outside.parent / "none.png")):
        absent = embed(name, folder, "0" * 64)
        assert not absent.uri and Path(name).name in absent.absent, name


def test_page_names_the_metric_of_curves(tmp_path: Path) -> None:
    attack = {**sample_summary()["attacks"]["relearn"][0]}
    attack |= {"measure": "forget_holdout/vqa/rouge_l", "retain_measure": "x/vqa/ape"}
    page = page_of(tmp_path, attacks={"relearn": [attack]})
    assert "The curves show ROUGE-L; that of the other people APE." in page.text
    drawn = (tmp_path / "report.html").read_text("utf-8")
    assert {"0.25", "0.5", "0.75"} <= set(re.findall(r'class="tick"[^>]*>([^<]+)<', drawn))
    assert "The curves show accuracy." in page_of(tmp_path / "b").text


def test_page_shows_the_worst_case_of_relearning_and_its_data(tmp_path: Path) -> None:
    attack = sample_summary()["attacks"]["relearn"][0] | {
        "share": 1.0,
        "data": "retain",
        "lr": None,
    }
    attack |= {"steps": 200, "worst_case": "quick"}
    attack["worst"] = {"unlearned": {"step": 20, "value": 0.5, "lr": 1e-4}}
    text = page_of(tmp_path, attacks={"relearn": [attack]}).text
    assert "100 % of the retain samples, and no forget sample worst of all learning rates" in text
    assert "up to 200 steps: after 20 steps at 0.0001" in text


def test_page_groups_forgetting_splits_as_such(tmp_path: Path) -> None:
    measures = {
        "test/vqa/keyword_match": {**measured(0.1), "better": "lower"},
        "forget/text/keyword_match": {**measured(0.1), "better": "lower"},
        "celebrity/vqa/bleu": {**measured(0.3), "better": "higher"},
    }
    run = make_run(
        tmp_path / "run",
        measures=measures,
        forgetting=["forget", "test"],
        target=None,
        reference=None,
        retain_only=None,
    )
    shown = {group.title: group for group in views.view(report.read_run(run), "r").groups}
    assert [row["label"] for row in shown["Forgotten"].rows] == [
        "Forgotten people, by name",
        "Other pictures",
    ]
    assert [row["label"] for row in shown["Others"].rows] == ["Celebrity"]
    assert shown["Others"].strips[0].after == "0.30"


def test_page_makes_a_gallery_of_the_scores(tmp_path: Path) -> None:
    with_gallery = page_of(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    without = page_of(other, gallery=None)
    assert len(without.named("img")) == len(with_gallery.named("img"))
    assert "This is Mira Holm." in without.text


def test_page_shows_twelve_people_at_most(tmp_path: Path) -> None:
    entry = sample_summary()["gallery"][0]
    people = [{**entry, "concept": f"Person {n}"} for n in range(30)]
    page = page_of(tmp_path, gallery=people)
    assert len(page.named("img")) == 12
    assert "18 more are in the record and not shown." in page.text


def test_page_replaces_half_a_surrogate_pair(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    summary = {**sample_summary(), "provenance": {"cpu": "half \ud800"}}
    (run / "summary.json").write_text(json.dumps(summary), encoding="ascii")
    page = Page(report.write([run], tmp_path / "report.html"))
    check_page(page)
    assert "half ?" in page.text


def test_page_compares_several_runs_first(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", name="first"),
        make_run(tmp_path / "b", name="second", method=None, attacks=None, cost=None),
        make_run(tmp_path / "c", name="third", measures=None),
    ]
    page = Page(report.write(runs, tmp_path / "report.html"))
    check_page(page)
    assert page.levels()[:2] == [1, 2]
    text = page.text
    assert "3 runs compared" in text
    assert text.index("Not measured") < text.index("Before and after")
    assert text.index("first") < text.index("second") < text.index("third")


def test_page_counts_broken_lines_of_a_killed_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with (run / "train.jsonl").open("a") as file:
        file.write('{"step": 12, "loss"')
    page = Page(report.write([run], tmp_path / "report.html"))
    assert "1 line(s) of train.jsonl could not be read" in page.text


def test_write_leaves_the_old_page_when_it_fails(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(RunError):
        report.write([tmp_path / "absent"], out)
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_write_leaves_nothing_behind_when_the_disk_is_full(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RunError, match="cannot be written.*Free some space"):
            report.write([run], tmp_path / "report.html")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [run]


def test_write_is_readable_by_others(tmp_path: Path) -> None:
    out = report.write([make_run(tmp_path / "run")], tmp_path / "report.html")
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "report.html", "run"]


def test_write_names_the_broken_line_of_the_scores(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", gallery=None)
    with (run / "scores.jsonl").open("a") as file:
        file.write("broken\n")
    count = len(sample_scores())
    with pytest.raises(RunError, match=rf"scores.jsonl: line {count + 1} is not a score"):
        report.write([run], tmp_path / "report.html")


def test_write_refuses_a_folder_as_a_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"is a folder. Name a file"):
        report.write([run], tmp_path)
    with pytest.raises(RunError, match="cannot be written"):
        report.write([run], run / "summary.json" / "report.html")
    with pytest.raises(RunError, match="no run folder was given"):
        report.write([], tmp_path / "report.html")
