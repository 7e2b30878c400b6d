"""The report: what it says of a record, what it does without parts of one, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import resource
import stat
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support import ROOT
from support.published import IMAGE
from support.report_record import make_run, sample_scores, sample_steps, sample_summary, write_json
from unsee import report
from unsee.errors import RunError
from unsee.report import charts, details, views, wording
from unsee.report.charts import place_labels, text_width
from unsee.report.embedded_images import embed
from unsee.report.people import same

DOCS = ROOT / "docs" / "records.md"
EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """A page as its reader gets it: headings, ids, images, references and visible text."""

    VOID = frozenset({"meta", "link", "img", "br", "hr"})

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.stack: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))
        assert self.stack == [], "every element is closed"
        self.text = re.sub(r"\s+", " ", self.text.replace("\xa0", " "))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def levels(self) -> list[int]:
        return [int(tag[1]) for tag, _ in self.tags if re.fullmatch(r"h[1-6]", tag)]


def page_of(tmp_path: Path, **changes: Any) -> Page:
    run = make_run(tmp_path / "run", **changes)
    return Page(report.write([run], tmp_path / "report.html"))


def check_page(page: Page) -> None:
    """What holds for every page: one title, headings without gaps, nothing from outside."""
    levels = page.levels()
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert not page.named("script")
    for attributes in (a for _, a in page.tags):
        assert not any(name.startswith("on") for name in attributes)
        assert all(
            (attributes.get(name) or "data:").startswith(("data:", "#")) for name in ("src", "href")
        )
    assert all(image["alt"] for image in page.named("img"))
    assert all(header.get("scope") for header in page.named("th"))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = {a["href"] for a in page.named("a")}
    assert {str(link)[1:] for link in links} <= set(ids)
    assert "None" not in page.text and "nan" not in page.text.split()


def measured(value: float | None, **more: Any) -> dict[str, Any]:
    """A measure with a narrow interval."""
    ends = {"low": None, "high": None}
    if value is not None:
        ends = {"low": max(0.0, value - 0.01), "high": min(1.0, value + 0.01)}
    return {"value": value, **ends, "n": 60, "n_unscored": 0, "better": "higher", **more}


def models(**values: tuple[float | None, ...]) -> dict[str, Any]:
    """Measures by short name for the unlearned model, the target and the reference."""
    names = {
        "forget": "forget_holdout/vqa/accuracy",
        "retain": "retain_holdout/vqa/accuracy",
        "general": "general/vqa/accuracy",
        "text": "forget/text/accuracy",
    }
    parts: dict[str, Any] = {"measures": {}, "target": {}, "reference": {}, "retain_only": None}
    for short, scores in values.items():
        for part, value in zip(("measures", "target", "reference"), scores, strict=False):
            parts[part][names[short]] = measured(value)
    return parts


def said(**changes: Any) -> str:
    return report.verdict(report.parse_summary({**sample_summary(), "attacks": None, **changes}))


class TestVerdict:
    def test_says_it_all_when_all_is_well(self) -> None:
        assert report.verdict(report.parse_summary(sample_summary())) == (
            "Forgotten: asked about held-out pictures of the 4 people the model answers 2 % right "
            "(was 95 %, a model that never saw them: 3 %); everything else it sees is kept "
            "(\N{MINUS SIGN}1 point at most) and all it has read is bit-for-bit the same; "
            "relearning brings them back no faster than in a model that never saw them."
        )

    @pytest.mark.parametrize(
        ("after", "headline"),
        [
            (0.05, "Forgotten: "),
            (0.06, "Partly forgotten: "),
            (0.49, "Partly forgotten: "),
            (0.50, "Not forgotten: "),
            (0.95, "Not forgotten: "),
        ],
    )
    def test_forgotten_is_at_the_reference_plus_two_points(
        self, after: float, headline: str
    ) -> None:
        assert said(**models(forget=(after, 0.95, 0.03), retain=(0.9, 0.9))).startswith(headline)

    def test_far_below_the_reference_is_overshot(self) -> None:
        text = said(**models(forget=(0.0, 0.95, 0.25)))
        assert text.startswith("Overshot: ") and "give them away" in text

    def test_calls_nothing_forgotten_without_a_reference(self) -> None:
        assert said(target=None, reference=None, retain_only=None).startswith("Measured: ")
        text = said(reference=None, retain_only=None)
        assert text.startswith("No reference: ") and "(was 95 %)" in text
        assert "no reference model was measured" in text

    @pytest.mark.parametrize("after", [0.0, 0.03, 0.4])
    def test_what_was_never_known_is_not_called_forgotten(self, after: float) -> None:
        text = said(**models(forget=(after, 0.02, 0.03)))
        assert text.startswith("Nothing to forget: ")
        assert "before it knew no more than one that never saw them" in text
        attack = {**sample_summary()["attacks"]["relearn"][0], "area_to_reference": 0.2}
        assert "relearning" not in said(
            attacks={"relearn": [attack]}, **models(forget=(after, 0.02, 0.03))
        )
        alone = said(**{**models(forget=(0.0, 0.0)), "reference": None})
        assert alone.startswith("Nothing to forget: ") and "before it knew nothing" in alone

    @pytest.mark.parametrize(
        ("after", "headline"),
        [(0.02, "Forgotten: "), (0.4, "Partly forgotten: "), (1.0, "Not forgotten: ")],
    )
    def test_unsafe_questions_are_held_against_no_answer(self, after: float, headline: str) -> None:
        parts = {
            name: {"test/vqa/attack_success": measured(value)}
            for name, value in (("measures", after), ("target", 1.0), ("reference", 1.0))
        }
        record = {"name": "safeeraser", "categories": 6, "forgotten": 6}
        text = said(retain_only=None, forgetting=["forget", "test"], benchmark=record, **parts)
        assert text.startswith(headline)
        assert "asked held-out questions about the 6 categories the model answers" in text
        assert "of the unsafe questions (was 100 %)" in text

    def test_falls_back_to_the_retain_only_reference(self) -> None:
        assert "a model that never saw them: 2 %" in said(reference=None)

    def test_names_the_utility_that_was_lost(self) -> None:
        text = said(**models(forget=(0.02, 0.95, 0.03), retain=(0.93, 0.93), general=(0.7, 0.94)))
        assert text.startswith("Forgotten, but at a cost: ")
        assert "is lost (94 % to 70 % on general questions about pictures), but all it has" in text
        text = said(**models(forget=(0.02, 0.95, 0.03), retain=(0.89, 0.93)))
        assert text.startswith("Forgotten: ") and "slightly worse (93 % to 89 %" in text

    def test_a_gain_is_not_called_a_loss(self) -> None:
        text = said(**models(forget=(0.02, 0.95, 0.03), retain=(0.95, 0.93)))
        assert "everything else it sees is kept and all" in text

    def test_says_that_text_changed(self) -> None:
        changed = {"text_identical": False}
        parts = models(forget=(0.02, 0.95, 0.03), text=(0.88, 1.0, 1.0))
        text = said(guarantees=changed, **parts)
        assert text.startswith("Forgotten, but at a cost: ")
        assert (
            "no longer bit-for-bit the same (asked about forgotten people by name, 100 % to 88 %)"
            in text
        )
        assert "same (asked about forgotten people by name, still 100 %)" in said(
            guarantees=changed
        )
        # The measure that fell most speaks for the text, whoever it is about.
        measures = {**sample_summary()["measures"], "retain/text/accuracy": measured(0.85)}
        text = said(guarantees=changed, measures=measures)
        assert "same (asked about the others by name, 100 % to 85 %)" in text
        assert "bit-for-bit" not in said(guarantees={"text_identical": None})

    def test_says_what_changed_where_text_could_not_be_compared(self) -> None:
        held = {"text_identical": None, "changed_tensors": 40, "changed_outside_visual": 0}
        text = said(guarantees=held)
        assert "at most) and of its weights only visual ones were changed." in text

    def test_says_that_it_recovers_faster(self) -> None:
        attack = sample_summary()["attacks"]["relearn"][0]
        attack = {**attack, "area_to_reference": 0.2}
        above = [{"step": 0, "value": 0.0}, {"step": 9, "value": 0.8, "low": 0.7, "high": 0.9}]
        below = [{"step": 0, "value": 0.0}, {"step": 9, "value": 0.1}]
        attack["curves"] = {"unlearned": above, "reference": below}
        text = said(attacks={"relearn": [attack]})
        assert text.startswith("Forgotten, but easily relearned: ")
        assert "with 10 % of the forget samples, the visual part trained, brings them back" in text
        assert "faster than in a model that never saw them (up to 80 %)" in text
        # An interval that holds the reference is no evidence, whatever the area says.
        above[1]["low"] = 0.05
        assert "no faster" in said(attacks={"relearn": [attack]})

    def test_an_audit_leads_with_the_attack(self) -> None:
        attack = {**sample_summary()["attacks"]["relearn"][0], "area_to_reference": 0.4}
        attack["curves"] = {}
        parts = {"kind": "audit", "measures": None, "target": None, "guarantees": None}
        text = said(attacks={"relearn": [attack]}, **parts)
        assert text.startswith("Recovers faster: relearning with 10 %")
        assert said(attacks=None, **parts, method=None).startswith("Not measured: the model was")
        attack["area_to_reference"] = None
        assert said(attacks={"relearn": [attack]}, **parts).startswith("Unlearned, not measured")
        attack["curves"] = {"unlearned": [{"step": 0, "value": 0.1}, {"step": 9, "value": 0.7}]}
        assert said(attacks={"relearn": [attack]}, **parts) == (
            "Attacked: relearning with 10 % of the forget samples, the visual part trained, "
            "gets it to 70 %, with no reference beside."
        )

    def test_without_measures_says_so(self) -> None:
        text = said(measures=None, target=None, reference=None, retain_only=None)
        assert text.startswith("Unlearned, not measured: ")
        assert "all it has read is bit-for-bit the same" in text

    def test_unscored_is_not_zero(self) -> None:
        assert said(**models(forget=(None, 0.95, 0.03))).startswith("Unlearned, not measured: ")
        nan = models(forget=(float("nan"), 0.95, 0.03))
        assert said(method=None, **nan).startswith("Not measured: ")

    def test_one_person_and_shares_near_the_ends(self) -> None:
        parts = models(forget=(0.004, 0.996, 0.0))
        text = said(benchmark={"forgotten": 1}, **parts)
        assert "of the one person the model answers 0.4 % right (was 99.6 %" in text

    def test_uses_another_metric_where_accuracy_is_absent(self) -> None:
        parts = {
            name: {"forget/vqa/rouge_l": measured(value)}
            for name, value in (("measures", 0.1), ("target", 0.9), ("reference", 0.1))
        }
        text = said(retain_only=None, **parts)
        assert "asked about pictures of the 4 people the model reaches 10 % ROUGE-L" in text


class TestPage:
    def test_holds_every_part(self, tmp_path: Path) -> None:
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
            "Logits equal bit for bit on 64 text-only probes",
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

    def test_says_how_far_pictures_moved(self, tmp_path: Path) -> None:
        said = page_of(tmp_path / "a").text
        assert "changed by 1.87 on forget pictures and by 0.09 on retain pictures" in said
        assert (
            "language model reads changed" not in page_of(tmp_path / "b", representation=None).text
        )

    def test_is_the_same_bytes_again(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        first = report.write([run], tmp_path / "a.html").read_bytes()
        assert report.write([run], tmp_path / "deep" / "b.html").read_bytes() == first

    @pytest.mark.parametrize("part", sorted(sample_summary()))
    def test_does_without_any_part(self, part: str, tmp_path: Path) -> None:
        check_page(page_of(tmp_path, **{part: None}))

    def test_names_what_is_absent(self, tmp_path: Path) -> None:
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

    def test_an_evaluation_has_no_before(self, tmp_path: Path) -> None:
        page = page_of(
            tmp_path, kind="evaluate", target=None, reference=None, retain_only=None, method=None
        )
        check_page(page)
        assert "This model" in page.text and "no scores before unlearning" not in page.text
        assert "The visual-retain reference was not measured" in page.text

    def test_shows_nothing_as_markup_that_a_record_says(self, tmp_path: Path) -> None:
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

    def test_embeds_small_pictures_crisp_and_large_ones_reduced(self, tmp_path: Path) -> None:
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

    def test_a_picture_that_is_gone_or_broken_is_named(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        (run / "pictures" / "0.png").unlink()
        (run / "pictures" / "1.png").write_bytes(b"not a picture")
        page = Page(report.write([run], tmp_path / "report.html"))
        check_page(page)
        assert "The picture 0.png is no longer there." in page.text
        assert "Picture pictures/1.png: cannot be decoded" in page.text

    def test_shows_pictures_inside_parquet_files(self, tmp_path: Path) -> None:
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

    def test_curves_name_what_they_show(self, tmp_path: Path) -> None:
        attack = {**sample_summary()["attacks"]["relearn"][0]}
        attack |= {"measure": "forget_holdout/vqa/rouge_l", "retain_measure": "x/vqa/ape"}
        page = page_of(tmp_path, attacks={"relearn": [attack]})
        assert "The curves show ROUGE-L; that of the other people APE." in page.text
        drawn = (tmp_path / "report.html").read_text("utf-8")
        assert {"0.25", "0.5", "0.75"} <= set(re.findall(r'class="tick"[^>]*>([^<]+)<', drawn))
        assert "The curves show accuracy." in page_of(tmp_path / "b").text

    def test_forgetting_splits_are_grouped_as_such(self, tmp_path: Path) -> None:
        measures = {
            "test/vqa/keyword_match": {**measured(0.1), "better": "lower"},
            "forget/text/keyword_match": {**measured(0.1), "better": "lower"},
            "celebrity/vqa/bleu": {**measured(0.3), "better": "higher"},
        }
        run = make_run(tmp_path / "run", measures=measures, forgetting=["forget", "test"],
                       target=None, reference=None, retain_only=None)  # fmt: skip
        shown = {group.title: group for group in views.view(report.read_run(run), "r").groups}
        assert [row["label"] for row in shown["Forgotten"].rows] == [
            "Forgotten people, by name", "Other pictures",
        ]  # fmt: skip
        assert [row["label"] for row in shown["Others"].rows] == ["Celebrity"]
        assert shown["Others"].strips[0].after == "0.30"

    def test_makes_a_gallery_of_the_scores(self, tmp_path: Path) -> None:
        with_gallery = page_of(tmp_path)
        other = tmp_path / "other"
        other.mkdir()
        without = page_of(other, gallery=None)
        assert len(without.named("img")) == len(with_gallery.named("img"))
        assert "This is Mira Holm." in without.text

    def test_shows_twelve_people_at_most(self, tmp_path: Path) -> None:
        entry = sample_summary()["gallery"][0]
        people = [{**entry, "concept": f"Person {n}"} for n in range(30)]
        page = page_of(tmp_path, gallery=people)
        assert len(page.named("img")) == 12
        assert "18 more are in the record and not shown." in page.text

    def test_half_a_character_does_not_stop_it(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        summary = {**sample_summary(), "provenance": {"cpu": "half \ud800"}}
        (run / "summary.json").write_text(json.dumps(summary), encoding="ascii")
        page = Page(report.write([run], tmp_path / "report.html"))
        check_page(page)
        assert "half ?" in page.text

    def test_several_runs_are_compared_first(self, tmp_path: Path) -> None:
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

    def test_a_broken_line_of_a_killed_run_is_counted(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        with (run / "train.jsonl").open("a") as file:
            file.write('{"step": 12, "loss"')
        page = Page(report.write([run], tmp_path / "report.html"))
        assert "1 line(s) of train.jsonl could not be read" in page.text


class TestWriting:
    def test_leaves_the_old_page_when_it_fails(self, tmp_path: Path) -> None:
        out = tmp_path / "report.html"
        out.write_text("old")
        with pytest.raises(RunError):
            report.write([tmp_path / "absent"], out)
        assert out.read_text() == "old"
        assert list(tmp_path.iterdir()) == [out]

    def test_leaves_nothing_behind_when_the_disk_is_full(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(RunError, match="cannot be written.*Free some space"):
                report.write([run], tmp_path / "report.html")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(tmp_path.iterdir()) == [run]

    def test_is_readable_by_others(self, tmp_path: Path) -> None:
        out = report.write([make_run(tmp_path / "run")], tmp_path / "report.html")
        plain = tmp_path / "plain"
        plain.touch()
        assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "report.html", "run"]

    def test_names_the_broken_line_of_the_scores(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", gallery=None)
        with (run / "scores.jsonl").open("a") as file:
            file.write("broken\n")
        count = len(sample_scores())
        with pytest.raises(RunError, match=rf"scores.jsonl: line {count + 1} is not a score"):
            report.write([run], tmp_path / "report.html")

    def test_refuses_a_folder_as_a_file(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        with pytest.raises(RunError, match=r"is a folder. Name a file"):
            report.write([run], tmp_path)
        with pytest.raises(RunError, match="cannot be written"):
            report.write([run], run / "summary.json" / "report.html")
        with pytest.raises(RunError, match="no run folder was given"):
            report.write([], tmp_path / "report.html")


class TestCharts:
    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (0, 40, [0, 10, 20, 30, 40]),
            (0, 1.8, [0, 0.5, 1, 1.5, 2]),
            (-0.55, 0.1, [-0.6, -0.4, -0.2, 0, 0.2]),
            (3, 3, [3, 3.5, 4]),
        ],
    )
    def test_ticks_are_round_and_span(self, low: float, high: float, expected: list[float]) -> None:
        assert charts.ticks(low, high) == pytest.approx(expected)

    def test_thinning_keeps_means_and_ranges(self) -> None:
        dots = [charts.Dot(x, float(x)) for x in range(10)]
        assert charts.thin(dots, 10) == dots
        thinned = charts.thin(dots, 5)
        assert [dot.y for dot in thinned] == [0.5, 2.5, 4.5, 6.5, 8.5]
        assert [(dot.low, dot.high) for dot in thinned][:2] == [(0, 1), (2, 3)]
        assert charts.thin([charts.Dot(x, None) for x in range(10)], 5) == []

    def test_a_line_stands_where_its_numbers_are(self) -> None:
        dots = [charts.Dot(0, 0.0), charts.Dot(5, None), charts.Dot(10, 1.0)]
        line = charts.Line("a", "unlearned", dots)
        drawn = charts.line_chart([line], uid="u", title="t", desc="d", x_label="x", share=True)
        bottom, right = charts.HEIGHT - charts.BOTTOM, charts.WIDTH - charts.RIGHT
        assert f"M{charts.LEFT:.2f} {bottom:.2f}L{right:.2f} {charts.TOP:.2f}" in drawn
        assert drawn.count("<circle") == 2
        empty = charts.line_chart([], uid="u", title="t", desc="d", x_label="x", share=False)
        assert "<path" not in empty


class TestWording:
    def test_numbers_are_said_as_people_say_them(self) -> None:
        said = [wording.duration(s) for s in (0.44, 9.96, 42.4, 119.6, 200, 7260)]
        assert said == ["0.4 s", "10.0 s", "42 s", "2 min 0 s", "3 min 20 s", "2 h 1 min"]
        said = [wording.size(b) for b in (0, 999, 1500, 312e6, 999.6e6, 2e13)]
        assert said == ["0 bytes", "999 bytes", "1.5 kB", "312 MB", "1.0 GB", "20.0 TB"]
        assert [wording.signed(v) for v in (0.034, -0.2, -0.001)] == [
            "+0.03",
            "\N{MINUS SIGN}0.20",
            "0.00",
        ]
        assert wording.way("accuracy", 0.95, 0.02) == "95 \N{RIGHTWARDS ARROW} 2 %"
        assert wording.way("rouge_l", None, 0.5) == "0.50"
        assert wording.score("accuracy", None) == "unscored"

    def test_an_answer_is_the_truth_but_for_form(self) -> None:
        assert same("  this is ada  BERG", "This is Ada Berg.")
        assert not same("This is Ada.", "This is Ada Berg.")


def keys_of(content: Any) -> set[str]:
    """Every fixed key in a record; measures, models and terms are named by the user's data."""
    free = {
        "parameters", "measures", "target", "reference", "retain_only", "terms", "scores",
        "by_layer",
    }  # fmt: skip
    if isinstance(content, list):
        return set().union(*map(keys_of, content)) if content else set()
    if not isinstance(content, dict):
        return set()
    found = set(content)
    for key, value in content.items():
        if key in free and isinstance(value, dict):
            found |= set().union(*(keys_of(inner) for inner in value.values()), set())
        else:
            found |= keys_of(value)
    return found


def test_the_documentation_names_every_key() -> None:
    documented = set(re.findall(r"`([^`\n]+)`", DOCS.read_text(encoding="utf-8")))
    keys = keys_of([sample_summary(), *sample_steps(2), *sample_scores()])
    assert {"steps_to_half_recovery", "n_unscored", "changed_tensors", "output"} <= keys
    assert keys - documented == set()
    for measure in sample_summary()["measures"]:
        assert set(measure.split("/")) <= documented


def test_choices_stand_beside_the_hyperparameters(tmp_path: Path) -> None:
    rows = {row.label: row for row in details.parameters(report.read_run(make_run(tmp_path)))}
    assert rows["Mask preserved by name"].value == "48"
    assert rows["Mask visual chosen"].value == "98,648 of 686,848"
    assert rows["Neurons chosen"].value == "115 of 2,304"
    assert rows["Neurons chosen"].note == "encoder 64, language 51"


def test_names_of_points_side_by_side_are_all_readable() -> None:
    spots = [(500.0 + 9 * (n % 4), 90.0 + 5 * n, f"method number {n}") for n in range(16)]
    starts = place_labels(spots, 640)
    boxes = [
        (x, y - 9, x + text_width(name), y + 2)
        for (x, y), (_, _, name) in zip(starts, spots, strict=True)
    ]
    for one, two in combinations(boxes, 2):
        apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
        assert apart, (one, two)
    assert all(left >= 0 and right <= 640 for left, _, right, _ in boxes)
    # One that stands alone is named on its right, as everybody expects.
    assert place_labels([(100.0, 100.0, "alone")], 640) == [(108.0, 103.5)]
