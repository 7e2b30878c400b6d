"""Reading run folders: typed parts, data frames, records of older versions, and damage."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from support.report_record import make_run, sample_scores, sample_steps
from unsee.errors import ConfigError, RunError
from unsee.records.reader import Run, read_run
from unsee.report import verdict

# A run of unsee 0.1.0 (schema 1), as that version wrote it; every 25th line of scores.jsonl.
OLD_RUN = Path(__file__).parent / "data" / "run-0.1.0.tar.xz"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    with tarfile.open(OLD_RUN) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_read_run_reads_the_numbers_of_an_older_version(old_run: Path) -> None:
    content = json.loads((old_run / "summary.json").read_text("utf-8"))
    run = read_run(old_run)
    assert run.summary.to_dict() == content
    assert run.summary.verdict == verdict(run.summary)
    measures = run.summary.measures_of("unlearned")
    assert measures["forget_holdout/vqa/accuracy"].value == 0.06111111111111111
    assert run.summary.relearn[0].area_to_reference == 0.2340277777777778
    assert run.summary.relearn[0].max_new_tokens == {"forget_holdout": 24, "retain_holdout": 24}
    assert run.summary.cost is not None
    assert run.summary.cost.peak_memory_bytes == 640647168
    assert len(run.train) == 200 and run.unreadable == 0
    lines = (old_run / "scores.jsonl").read_text("utf-8").splitlines()
    assert [score.to_dict() for score in run.scores()] == [json.loads(line) for line in lines]


def test_run_repr_is_short(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert repr(run) == f"Run('{tmp_path / 'run'}', kind='demo', method='vkd', 'Forgotten')"
    assert repr(Run(Path("x"), read_run(make_run(tmp_path / "b", method=None)).summary)) == (
        "Run('x', kind='demo', method=None, 'Forgotten')"
    )


def test_measures_frame_has_a_row_a_measure(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    frame = run.measures_frame()
    models = ("unlearned", "target", "reference", "retain_only")
    assert len(frame) == sum(len(run.summary.measures_of(model)) for model in models)
    (row,) = frame[
        (frame.model == "unlearned")
        & (frame.split == "forget_holdout")
        & (frame.modality == "vqa")
        & (frame.metric == "accuracy")
    ].to_dict("records")
    assert (row["value"], row["low"], row["high"]) == (0.02, 0.0, 0.05)
    assert (row["n"], row["n_unscored"], row["better"]) == (60, 0, "reference")


def test_curves_frame_has_a_row_a_point(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    frame = run.curves_frame()
    assert len(frame) == 12 * 3 * 5
    points = frame[(frame.attack == 0) & (frame.model == "reference")]
    assert list(points.step) == [0, 5, 10, 20, 40]
    assert list(points.value) == [
        point.value for point in run.summary.relearn[0].curve("reference")
    ]
    assert set(frame.share) == {0.1, 0.2, 0.5, 1.0}
    assert set(frame["data"]) == {"forget"} and set(frame.worst_case) == {"off"}


def test_scores_frame_has_a_row_a_sample_and_a_column_a_metric(tmp_path: Path) -> None:
    frame = read_run(make_run(tmp_path / "run")).scores_frame()
    assert len(frame) == len(sample_scores())
    assert frame.accuracy.tolist() == [score["scores"]["accuracy"] for score in sample_scores()]
    assert frame.probability.isna().all()


@pytest.mark.parametrize("name", ["measures_frame", "curves_frame", "scores_frame"])
def test_frames_name_the_extra_where_pandas_is_missing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(make_run(tmp_path / "run"))
    monkeypatch.setattr("unsee.errors.find_spec", lambda module: None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'unsee[pandas]'")):
        getattr(run, name)()


def test_read_run_says_how_to_finish_an_unfinished_run(old_run: Path) -> None:
    (old_run / "summary.json").unlink()
    with pytest.raises(RunError, match="Finish it first: type `unsee demo --out runs/demo`"):
        read_run(old_run)
    (old_run / "recipe.yaml").write_text("method: vkd\n")
    with pytest.raises(RunError, match=r"type `unsee run .*recipe.yaml --out .*old`"):
        read_run(old_run)


@pytest.mark.parametrize("line", ["# rm -rf ~", "# unsee demo; rm -rf ~", "# unsee `x`", ""])
def test_read_run_advises_no_command_of_somebody_else(line: str, old_run: Path) -> None:
    (old_run / "summary.json").unlink()
    (old_run / "recipe.yaml").write_text(f"{line}\nmodel: m\nsplits: {{}}\n")
    with pytest.raises(RunError, match="Give the folder that --out named"):
        read_run(old_run)


def test_read_run_returns_typed_parts(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert run.summary.measures is not None
    measure = run.summary.measures["forget_holdout/vqa/accuracy"]
    assert (measure.value, measure.low, measure.high, measure.n) == (0.02, 0.0, 0.05, 60)
    assert run.summary.relearn[0].curve("reference")[1].step == 5
    assert len(run.train) == len(sample_steps())
    assert [score.id for score in run.scores()] == [score["id"] for score in sample_scores()]


def test_read_run_takes_the_later_line_of_a_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with (run / "train.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 7.0, "terms": {"keep": NaN}}\n')
    read = read_run(run)
    assert len(read.train) == len(sample_steps()) and read.unreadable == 0
    assert (read.train[3].step, read.train[3].loss) == (3, 7.0)
    assert read.train[3].terms == {"keep": None}


def test_read_run_accepts_the_summary_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert read_run(run / "summary.json") == read_run(run)


def test_read_run_refuses_what_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"absent: there is no such folder.*unsee report runs/"):
        read_run(tmp_path / "absent")
    run = make_run(tmp_path / "run")
    (run / "summary.json").unlink()
    with pytest.raises(RunError, match=r"no summary.json.*type `unsee run pocket-vkd`"):
        read_run(run)
    (run / "recipe.yaml").unlink()
    with pytest.raises(RunError, match=r"no summary.json.*--out named"):
        read_run(run)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "summary.json: cannot be read"),
        ("[1]", "holds list, not a JSON object"),
        ('{"schema": 2}', "schema 2; this version reads schema 1"),
        ('{"measures": {"a/vqa/b": {"value": "high"}}}', "'measures/a/vqa/b/value' is not"),
        ('{"measures": 3}', "'measures' is not as documented in docs/records.md"),
        ('{"attacks": {"relearn": [{"share": 0.1}]}}', "'attacks/relearn/0/steps' is not"),
        ('{"attacks": {"relearn": 3}}', "'attacks/relearn' is not"),
        ('{"guarantees": {"text_probes": "64"}}', "'guarantees/text_probes' is not"),
        ('{"cost": {"seconds": "1"}}', "'cost/seconds' is not"),
        ('{"cost": {"steps": [1]}}', "'cost/steps' is not"),
        ('{"benchmark": {"forgotten": true}}', "'benchmark/forgotten' is not"),
        ('{"attacks": {"jailbreak": {}}}', "'attacks/jailbreak' is not"),
        ("\N{REPLACEMENT CHARACTER}", "cannot be read"),
    ],
)
def test_read_run_names_file_and_key_of_damage(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=re.escape(message)) as caught:
        read_run(tmp_path)
    assert str(tmp_path) in str(caught.value)
