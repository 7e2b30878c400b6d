"""Chat templates are rendered once, in a process with limits, before anything renders them here.

A template is a program: it can loop for hours, or write a text that takes all memory. Jinja's
sandbox forbids neither.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from unsee.errors import ModelError, shorten
from unsee.models.checkpoint import read_json
from unsee.models.companions import refuse_not_regular

MOST_CHARACTERS = 1_000_000
CPU_SECONDS = 2
WALL_SECONDS = 30
MEMORY = 1 << 30

HOLDERS = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
ADVICE = "Take the chat template of the checkpoint's publisher."

RENDER = """
import contextlib, json, sys
given = json.load(sys.stdin)
sys.path[:] = given["path"]
import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
with contextlib.suppress(ImportError, ValueError, OSError):
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (given["cpu"], given["cpu"]))
    resource.setrlimit(resource.RLIMIT_AS, (given["memory"], given["memory"]))

class Generation(Extension):
    tags = {"generation"}
    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)

def refuse(message):
    raise jinja2.TemplateError(message)

environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = lambda value, **options: json.dumps(value)
environment.globals.update(raise_exception=refuse, strftime_now=lambda form: form)
tokens = {name + "_token": "<" + name + ">" for name in ("bos", "eos", "pad", "unk")}
turns = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Ada"}]},
]
try:
    for template in given["templates"]:
        compiled = environment.from_string(template)
        for messages, prompt in ((turns, False), (turns[:1], True)):
            size = 0
            with contextlib.suppress(jinja2.TemplateError, TypeError, ValueError, LookupError):
                for piece in compiled.generate(
                    messages=messages, add_generation_prompt=prompt, tools=None, **tokens
                ):
                    size += len(piece)
                    if size > given["most"]:
                        raise MemoryError
except jinja2.TemplateSyntaxError as error:
    print("is not valid: " + str(error))
except RecursionError:
    print("calls itself without end")
except (MemoryError, OverflowError):
    print("writes a text that is too long")
"""

# Templates that kept the limits in this process.
_rendered: set[str] = set()


def check_templates(folder: Path) -> None:
    """Renders the chat templates of a checkpoint in a process with limits of time and memory.

    What a template raises about the conversation itself is not looked at.

    Args:
        folder: The checkpoint.

    Raises:
        ModelError: If a template is not text or not valid, does not end in time, or writes more
            than it may.
    """
    for name, template in _templates(folder).items():
        if template in _rendered:
            continue
        if len(template) > MOST_CHARACTERS:
            fault = f"has more than {MOST_CHARACTERS:,} characters"
        else:
            fault = _fault(template)
        if fault:
            raise ModelError(f"model {folder}: the chat template in {name} {fault}. {ADVICE}")
        _rendered.add(template)


def _fault(template: str) -> str:
    """The fault of a template, rendered in a process of its own; empty if it has none."""
    given = {
        "path": sys.path,
        "templates": [template],
        "most": MOST_CHARACTERS,
        "cpu": CPU_SECONDS,
        "memory": MEMORY,
    }
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-c", RENDER],
            input=json.dumps(given).encode(),
            capture_output=True,
            timeout=WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"is not rendered in {CPU_SECONDS} seconds"
    printed = ended.stdout.decode("utf-8", "replace").strip()
    if ended.returncode < 0:
        return f"is not rendered in {CPU_SECONDS} seconds"
    if ended.returncode:
        last = ended.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"cannot be rendered ({shorten(' '.join(last), 200)})"
    return shorten(printed, 200)


def _templates(folder: Path) -> dict[str, str]:
    """The chat templates of a checkpoint, by the file (and the name in it) that holds them."""
    templates: dict[str, str] = {}
    files = [*folder.glob("*.jinja"), *(folder / "additional_chat_templates").glob("*.jinja")]
    for path in sorted(files):
        refuse_not_regular(path, folder)
        if path.stat().st_size > MOST_CHARACTERS:
            raise ModelError(
                f"model {folder}: {path.name} has more than {MOST_CHARACTERS:,} bytes. {ADVICE}"
            )
        try:
            templates[path.name] = path.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise ModelError(f"model {folder}: {path.name} is not UTF-8 text. {ADVICE}") from error
    for name in HOLDERS:
        if (folder / name).exists():
            templates |= _listed(read_json(folder / name).get("chat_template"), name, folder)
    return templates


def _listed(value: Any, name: str, folder: Path) -> dict[str, str]:
    """The templates of a value of "chat_template": one text, or several with their names."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {name: value}
    named = value
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        named = {str(entry.get("name")): entry.get("template") for entry in value}
    if isinstance(named, dict) and all(isinstance(text, str) for text in named.values()):
        return {f"{name} ({key})": text for key, text in named.items()}
    raise ModelError(
        f"model {folder}: {name} says chat_template = {shorten(str(value), 40)!r}, which is not "
        f"text. {ADVICE}"
    )
