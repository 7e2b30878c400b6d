"""The public API: one function for each job. The command line parses, calls these and prints.

    import unsee

    run = unsee.unlearn("checkpoints/llava-7b", forget="photos/", out="runs/job")
    unsee.apply(run.folder / "patch", "checkpoints/llava-7b", "unlearned")

A model is given as a checkpoint folder, a Hugging Face hub id (OWNER/NAME or
OWNER/NAME@REVISION), or BENCHMARK:ROLE for one that ships
with a benchmark ("pocket:target"). A loaded model (`unsee.VLM`) is refused, because a record must
say from which files the run can be repeated: save the model first, or train it in memory with
`Method.unlearn`.

Samples are given as a folder of images with one subfolder for each person, a table (.jsonl, .csv,
.tsv or .parquet) with columns image, question, answer and concept, or NAME:SPLIT of a benchmark
("pocket:forget").

A run that was stopped continues when the same function is called with the same `out`. Notes about
what was decided are logged at level WARNING to the logger "unsee".
"""

from unsee.api.comparisons import (
    Comparison,
    ComparisonOptions,
    MetaEvaluation,
    ablate,
    compare,
    compare_records,
    meta_evaluate,
)
from unsee.api.jobs import (
    audit,
    check_finetune,
    check_recipe,
    demo,
    evaluate,
    finetune,
    run,
    unlearn,
)
from unsee.api.options import AuditOptions, EvaluateOptions
from unsee.api.patches import apply, doctor, export, history, undo, verify
from unsee.api.personal_data import purge
from unsee.api.publishing import load_patch, push
from unsee.api.requests import Ledger, LedgerOptions, create_ledger, open_ledger
from unsee.api.serving import ServeOptions, serve
from unsee.records.reader import Run, read_run

__all__ = [
    "AuditOptions",
    "Comparison",
    "ComparisonOptions",
    "EvaluateOptions",
    "Ledger",
    "LedgerOptions",
    "MetaEvaluation",
    "Run",
    "ServeOptions",
    "ablate",
    "apply",
    "audit",
    "check_finetune",
    "check_recipe",
    "compare",
    "compare_records",
    "create_ledger",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "finetune",
    "history",
    "load_patch",
    "meta_evaluate",
    "open_ledger",
    "purge",
    "push",
    "read_run",
    "run",
    "serve",
    "undo",
    "unlearn",
    "verify",
]
