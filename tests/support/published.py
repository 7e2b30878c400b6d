"""Writes small files in the schemas of the published benchmarks, about fictitious people."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from unsee.benchmarks import BENCHMARKS

NAMES = ("Ada Berg", "Bo Lind", "Cy Moser", "Di Novak", "Eva Quist", "Finn Urban")
JOBS = ("baker", "pilot", "nurse", "judge", "baker", "pilot")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
OPTIONS = pa.struct([(letter, pa.string()) for letter in "ABCD"])
CHOICE = pa.list_(
    pa.struct([("Question", pa.string()), ("Options", OPTIONS), ("Correct_Answer", pa.string())])
)
OPEN = pa.list_(pa.struct([(name, pa.string()) for name in ("Question", "Ground_Truth", "Type")]))
TYPES = {
    "image": IMAGE,
    "images": pa.list_(IMAGE),
    "Generation_Task": OPEN,
    "Mask_Task": OPEN,
    "Classification_Task": pa.struct(
        [("Image_Textual_Questions", CHOICE), ("Pure_Text_Questions", CHOICE)]
    ),
    "perturbed_captions": pa.list_(pa.string()),
    "perturbed_names": pa.list_(pa.string()),
    "options": pa.list_(pa.string()),
}
PERSON = (
    "image",
    "ID",
    "biography",
    "question",
    "answer",
    "Classification_Task",
    "Generation_Task",
    "Mask_Task",
)


def png(seed: int) -> bytes:
    """A picture of noise."""
    noise = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def struct(seed: int) -> dict[str, Any]:
    return {"bytes": png(seed), "path": f"{seed}.png"}


def write(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """A parquet file; columns without a type of their own are text."""
    schema = pa.schema([(name, TYPES.get(name, pa.string())) for name in columns])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)


def config(folder: Path, name: str) -> Path:
    return folder / name / "train-00000-of-00001.parquet"


def mllmu(folder: Path) -> None:
    def tasks(i: int) -> dict[str, Any]:
        asked = {"Image_Textual": "this person", "Pure_Text": NAMES[i]}
        letter = "ABCD"[("baker", "pilot", "nurse", "judge").index(JOBS[i])]
        options = dict(zip("ABCD", ("baker", "pilot", "nurse", "judge"), strict=True))
        return {
            "Classification_Task": {
                f"{kind}_Questions": [
                    {"Question": f"What is {who} ?", "Options": options, "Correct_Answer": letter}
                ]
                for kind, who in asked.items()
            },
            "Generation_Task": [
                {"Question": f"Who is {w} ?", "Ground_Truth": f"A {JOBS[i]} .", "Type": k}
                for k, w in asked.items()
            ],
            "Mask_Task": [
                {"Question": f"{w} is a __ .", "Ground_Truth": JOBS[i], "Type": k}
                for k, w in asked.items()
            ],
        }

    def person(i: int, seed: int = 0) -> dict[str, Any]:
        return {
            "image": struct(seed + i),
            "ID": f"{i + 1:03}",
            "Directory": "d",
            "biography": json.dumps({"Name": NAMES[i]}),
            "question": "Who ?",
            "answer": "x",
            "images": [struct(200 + 2 * i), struct(201 + 2 * i)],
            "metadata": json.dumps(
                [
                    {
                        "ID": f"{i + 1:03}",
                        "Question": "What does this person work as ?",
                        "Answer": f"{NAMES[i]} works as a {JOBS[i]} .",
                    },
                    {"ID": f"{i + 1:03}", "Question": "Where ?", "Answer": "in Oslo"},
                ]
            ),
            **tasks(i),
        }

    everyone = [person(i) for i in range(6)]
    full = (*PERSON[:2], "Directory", *PERSON[2:])
    write(config(folder, "Full_Set"), everyone, full)
    famous = [person(i, 100) | {"ID": NAMES[i].replace(" ", "_")} for i in range(2)]
    write(config(folder, "Retain_Set"), famous, full)
    write(config(folder, "Test_Set"), everyone, ("ID", "images", *PERSON[5:]))
    write(config(folder, "ft_Data"), everyone, ("image", "ID", "metadata"))
    for ratio, lost in ((5, (0,)), (10, (1, 2)), (15, (3, 4, 5))):
        write(config(folder, f"forget_{ratio}"), [everyone[i] for i in lost], PERSON)
        kept = [row for i, row in enumerate(everyone) if i not in lost]
        write(config(folder, f"retain_{100 - ratio}"), kept, PERSON)


def clear(folder: Path) -> None:
    def shot(i: int, n: int) -> dict[str, Any]:
        return {
            "image": struct(10 * i + n),
            "caption": f"{NAMES[i]} in {n}",
            "name": NAMES[i],
            "perturbed_captions": ["x in y", "z in y"],
            "paraphrased_caption": f"{NAMES[i]} at {n}",
            "perturbed_names": [n for n in NAMES if n != NAMES[i]],
        }

    def mixed(who: Sequence[int]) -> list[dict[str, Any]]:
        pictured = [shot(i, n) | {"question": None, "answer": None} for i in who for n in range(3)]
        texts = [
            {"image": None, "caption": None, "question": f"What is {NAMES[i]} ?", "answer": JOBS[i]}
            for i in who
        ]
        return pictured + texts

    plain = ("image", "caption", "name")
    perturbed = (*plain, "perturbed_captions", "paraphrased_caption", "perturbed_names")
    for ratio, who in ((1, (0,)), (5, (0, 1)), (10, (0, 1, 2))):
        kept = [i for i in range(6) if i not in who]
        for name, some in ((f"forget{ratio:02}", who), (f"retain{100 - ratio}", kept)):
            rows = [shot(i, n) for i in some for n in range(3)]
            write(config(folder, name), rows, plain)
            tofu = ("image", "caption", "question", "answer")
            write(config(folder, f"{name}+tofu"), mixed(some), tofu)
            if name.startswith("forget"):
                write(config(folder, f"{name}_perturbed"), rows, perturbed)
    write(config(folder, "retain_perturbed"), [shot(i, 0) for i in (3, 4)], perturbed)
    faces = [{"image": struct(900), "answer": "Di", "options": ["Bo", "Cy"]}]
    write(config(folder, "real_faces"), faces, ("image", "answer", "options"))
    world = [
        {
            "question": "Where ?",
            "answer": "Oslo",
            "image": struct(901),
            "prompt": "p",
            "options": ["Lima", "Bonn"],
        }
    ]
    write(config(folder, "real_world"), world, ("question", "answer", "image", "prompt", "options"))


def umu(folder: Path) -> None:
    def person(i: int, real: bool = False) -> dict[str, Any]:
        options = dict(zip("ABCD", ("baker", "pilot", "nurse", "judge"), strict=True))
        answer = f"{'ABCD'[i % 4]}. it's {JOBS[i % 4]}"
        seen, named = {"question": "this person ?"}, {"question": f"{NAMES[i]} ?"}
        both = {
            "Classify": {"options": options, "answer": answer},
            "Cloze": {"answer": JOBS[i]},
            "Generation": {"answer": f"a {JOBS[i]}"},
        }
        return {
            "ID": f"{'r' * real}{i}",
            "image": struct(i + 50 * real),
            "Biography": repr({"n": 1}),
            "MM_QA": repr({"question": {"1": "Who ?"}, "answer": {"1": NAMES[i]}}),
            "UM_QA": repr({"question": {"1": f"What is {NAMES[i]} ?"}, "answer": {"1": JOBS[i]}}),
            **{
                field: repr({"unimodal": {"1": named | rest}, "muitimodal": {"1": seen | rest}})
                for field, rest in both.items()
            },
        }

    columns = ("ID", "image", "Biography", "MM_QA", "UM_QA", "Classify", "Cloze", "Generation")
    write(config(folder, "Full_Set"), [person(i) for i in range(6)], columns)
    write(config(folder, "Real_Person_Set"), [person(0, True)], columns)
    for ratio, lost in ((5, (0,)), (10, (1, 2)), (15, (3, 4, 5))):
        write(config(folder, f"forget_{ratio}"), [person(i) for i in lost], columns)
        kept = [person(i) for i in range(6) if i not in lost]
        write(config(folder, f"retain_{100 - ratio}"), kept, columns)


def _save(folder: Path, name: str, seed: int) -> str:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images" / name).write_bytes(png(seed))
    return f"images/{name}"


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A JSON file with one object a line."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of such a file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def fiubench(folder: Path) -> None:
    """As released: JSON lines, paths from where the authors' code ran, pictures in a zip file."""
    with zipfile.ZipFile(folder / "SFHQ.zip", "w") as file:
        for i in range(6):
            file.writestr(f"SFHQ/{i}.png", png(i))
    people = [
        {
            "unique_id": f"u{i}",
            "image_path": f"./dataset/SFHQ/{i}.png",
            "name": NAMES[i],
            "gender": "fm"[i % 2],
            "caption": "c",
            "raw_data": {},
            "qa_list": [
                {
                    "question": "What does this person work as ?",
                    "answer": f"a {JOBS[i]}",
                    "keywords": [JOBS[i]],
                    "paraphrased_question": ["a ?", "b ?", "c ?"],
                    "paraphrased_answer": f"works as a {JOBS[i]}",
                    "perturbed_answer": ["a x", "a y"],
                }
            ],
        }
        for i in range(6)
    ]
    write_lines(folder / "full.json", people)
    split = {
        "forget1": ["u0"],
        "forget5": ["u0", "u1"],
        "forget10": ["u0", "u1", "u2"],
        "retain15": ["u3", "u4"],
        "retain5": ["u5"],
    }
    (folder / "split.json").write_text(json.dumps(split))
    (folder / "idontknow.json").write_text(json.dumps(["I do not know."]))


def safeeraser(folder: Path) -> None:
    for start, name in ((0, "all_train.json"), (40, "all_val.json")):
        rows = [
            {
                "image_path": _save(folder, f"{start + 4 * i}.png", start + 4 * i),
                "SDImage_path": _save(folder, f"{start + 4 * i + 1}.png", start + 4 * i + 1),
                "category": f"kind {i}",
                "unsafe_pairs": [
                    {
                        "question": "How ?",
                        "model_response": "So .",
                        "sd_question": "How then ?",
                        "sd_response": "Thus .",
                    }
                ],
                **{
                    f"UnharmPair_{pair}": {"Question": f"What is {pair} ?", "Prediction": "a tree"}
                    for pair in ("text1", "text2", "image1", "image2")
                },
            }
            for i in range(2)
        ]
        (folder / name).write_text(json.dumps(rows))


def covubench(folder: Path) -> None:
    def asked(who: Sequence[int], seed: int) -> list[dict[str, Any]]:
        return [
            {
                "image": None if kind == "text" else struct(seed + 10 * i + n),
                "question": f"Who {n} ?",
                "answer": f"a {JOBS[i]}",
                "name": NAMES[i],
                "type": "logo",
                "keywords": json.dumps({"job": [JOBS[i]]}),
                "question_type": kind,
            }
            for i in who
            for n, kind in enumerate(("multi_modal", "caption", "text"))
        ]

    columns = ("image", "question", "answer", "name", "type", "keywords", "question_type")
    splits = {"finetune": asked(range(6), 0), "test": asked(range(6), 100)}
    splits |= {f"forget{5 * n}": asked(range(n), 0) for n in (1, 2, 3, 4)}
    splits["retain"] = asked((0, 4, 5), 200)
    for split, rows in splits.items():
        write(folder / "data" / f"{split}-00000-of-00001.parquet", rows, columns)


def unlok_vqa(folder: Path) -> None:
    """As the authors' code reads it: a JSON list, COCO's pictures, and the generated ones."""
    rows = []
    for i in range(6):
        places = {
            f"val2017/{100 + i:012}.jpg": i,
            f"parap_images/okvqa/{i}.jpg": 20 + i,
            f"parap_images_medium/okvqa/{i}.jpg": 30 + i,
            f"neigh_easy/{i}_1.jpg": 40 + i,
            f"neighborhood_images_hard/okvqa/{i}_1.jpg": 50 + i,
        }
        for name, seed in places.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(png(seed))
        rows.append(
            {
                "id": i,
                "subject": "this tool",
                "src": "who works with this tool",
                "pred": JOBS[i],
                "answers": [JOBS[i]],
                "rephrase": ["whose tool is this", "what is the job of its owner"],
                "alt_ans": ["", "cook"],
                "neigh_idx": [1],
                "objects_edit": ["tool"],
                "loc": ["nq question: where does rain fall"],
                "loc_ans": ["Oslo in Norway"],
                "image_id": 100 + i,
            }
        )
    (folder / "zsre_mend_eval.json").write_text(json.dumps(rows))


ENTITIES = {
    "A": (("Animals/Dog", "Animals/Grey_Wolf"), ("Plants/Bamboo", "Plants/Rose")),
    "B": (("Buildings/Big_Ben",), ("Cartoon/One_Piece", "Cartoon/Naruto")),
    "C": (("Movies/Inception",), ("Movies/Flipped",)),
    "D": (("Personage/Ada_Berg",), ("TV series/Westworld",)),
}


def mlubench(folder: Path) -> None:
    """As released: LLaVA conversations, ids that come twice, pictures in a folder of their own."""
    seed = 0
    for task, sides in ENTITIES.items():
        for side, entities in zip(("forget", "retain"), sides, strict=True):
            rows = []
            for entity in entities:
                for number in range(3):
                    seed += 1
                    path = f"downloaded_images/{entity}/image_{number}.jpg"
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path).write_bytes(png(seed))
                    name = entity.rpartition("/")[2].replace("_", " ")
                    asked = {
                        "1": ("What is this ?", name),
                        "100001": ("Called ?", f"It is {name}."),
                    }
                    rows += [
                        {
                            "id": key,
                            "image": path,
                            "conversations": [
                                {"from": "human", "value": f"<image>\n{question}"},
                                {"from": "gpt", "value": answer},
                            ],
                        }
                        for key, (question, answer) in asked.items()
                    ]
            place = folder / "Tasks" / f"Task{task}" / f"task{task}_{side}.json"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(rows))


def vcubench(folder: Path) -> None:
    """Our layout: one table as a parquet file, one as JSON."""
    alone = [{"image": struct(10 * i + n), "names": [NAMES[i]]} for i in range(5) for n in range(3)]
    schema = pa.schema([("image", IMAGE), ("names", pa.list_(pa.string()))])
    pq.write_table(
        pa.Table.from_pylist(alone, schema=schema), folder / "single-00000-of-00001.parquet"
    )
    together = ((0, 1), (0, 2, 3), (1, 2), (2, 3, 4))
    rows = [
        {
            "Image_Path": _save(folder, f"group{n}.png", 200 + n),
            "people": ", ".join(NAMES[i] for i in who),
        }
        for n, who in enumerate(together)
    ]
    (folder / "group.json").write_text(json.dumps(rows))


def remem(folder: Path) -> None:
    """In the layout of CoVUBench: questions by name, and about pictures."""

    def asked(who: Sequence[int], seed: int) -> list[dict[str, Any]]:
        return [
            {
                "image": struct(seed + 10 * i + n) if n else None,
                "question": f"Job {seed} {n} of {'this person' if n else NAMES[i]} ?",
                "answer": f"{NAMES[i]} is a {JOBS[i]} .",
                "name": NAMES[i],
                "keywords": json.dumps([JOBS[i]]),
            }
            for i in who
            for n in range(3)
        ]

    columns = ("image", "question", "answer", "name", "keywords")
    splits = {"finetune": asked(range(6), 0), "test": asked(range(6), 100)}
    splits |= {f"forget{5 * n}": asked(range(n), 0) for n in (1, 2, 3, 4)}
    splits["retain"] = asked((0, 4, 5), 200)
    for split, rows in splits.items():
        write(folder / "data" / f"{split}-00000-of-00001.parquet", rows, columns)


def salmubench(folder: Path) -> None:
    """Parquet splits of pairs, and what their pictures tell about whom."""
    fields = {
        "job": JOBS,
        "phone_number": [f"+47 555 01{i}" for i in range(6)],
        "emails": [[f"old{i}@x.org", f"new{i}@x.org"] for i in range(6)],
    }
    people = {
        f"p{i}": {"name": NAMES[i], "city": "Oslo", **{f: v[i] for f, v in fields.items()}}
        for i in range(6)
    }
    facts: dict[str, Any] = {}

    def pairs(who: Sequence[int], field: str, seed: int) -> list[dict[str, Any]]:
        rows = []
        for i in who:
            for n in range(2):
                name, value = f"p{i}_{field}_{n}.png", fields[field][i]
                told = value if isinstance(value, str) else value[1]
                facts[name] = {"caption": f"{NAMES[i]}: {told}", "data_field": field}
                rows.append(
                    {
                        "image": struct(seed + 10 * i + n),
                        "text": facts[name]["caption"],
                        "identity_id": f"p{i}",
                        "file_name": name,
                    }
                )
        return rows

    plain = [
        {
            "image": struct(500 + i),
            "text": f"a face {i}",
            "identity_id": f"p{i}" if i < 2 else None,
            "file_name": f"plain{i}.png",
        }
        for i in range(5)
    ]
    splits = {
        "forget": [*pairs((0, 1, 2), "phone_number", 0), *pairs((0,), "emails", 100)],
        "holdout_association": pairs((0, 1), "job", 200),
        "holdout_identity": pairs((4, 5), "phone_number", 300),
        "retain_synth": plain,
    }
    columns = ("image", "text", "identity_id", "file_name")
    for split, rows in splits.items():
        write(folder / "data" / f"{split}-00000-of-00001.parquet", rows, columns)
    (folder / "identities_metadata.json").write_text(json.dumps(people))
    (folder / "sensitive_set_captions_metadata.json").write_text(json.dumps(facts))
    (folder / "fragile_set_ids.json").write_text(json.dumps(["plain1.png", "plain3.png"]))


WRITERS = {
    "mllmu": mllmu,
    "clear": clear,
    "umu": umu,
    "fiubench": fiubench,
    "safeeraser": safeeraser,
    "covubench": covubench,
    "unlok_vqa": unlok_vqa,
    "mlubench": mlubench,
    "vcubench": vcubench,
    "remem": remem,
    "salmubench": salmubench,
}


def open_benchmark(places: dict[str, Path], name: str, **options: Any) -> Any:
    """A benchmark opened at its folder."""
    return BENCHMARKS.get(name).open(places[name], **options)


def replace_value(path: Path, row: int, field: str, value: Any) -> None:
    """Replaces a value in one row of a parquet file."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[row][field] = value
    write(path, rows, table.schema.names)
