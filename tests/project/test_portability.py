"""The package can be imported without the modules and functions that only POSIX systems have."""

from __future__ import annotations

import subprocess
import sys

# Modules of the standard library that are missing on Windows, and functions that are missing on
# Windows or macOS. torch and transformers are imported first: they have ports of their own.
IMPORT_EVERYTHING = """
import importlib, mmap, os, pkgutil, sys
import transformers, torch, accelerate, peft, PIL.Image, pyarrow, sklearn.linear_model
import multiprocessing, subprocess, tempfile

for name in ("resource", "fcntl", "termios", "pwd", "grp", "readline", "syslog"):
    sys.modules[name] = None
for name in ("posix_fallocate", "sysconf", "fork", "nice", "getuid", "sched_getaffinity"):
    if hasattr(os, name):
        delattr(os, name)
for name in [name for name in dir(mmap) if name.startswith("MADV_")]:
    delattr(mmap, name)

import unsee

for module in pkgutil.walk_packages(unsee.__path__, "unsee."):
    if module.name != "unsee.__main__":
        importlib.import_module(module.name)

from unsee.records.provenance import peak_memory

assert peak_memory() is None
"""


def test_every_module_imports_without_posix_modules() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
