"""A stand-in of the Hugging Face hub on 127.0.0.1, which the client `huggingface_hub` talks to.

It answers the requests that the client makes for what is tested here: repositories with branches,
tags and commits, private and gated ones, files by revision with entity tags, and uploads by the
Git LFS protocol. It keeps everything in memory. Xet, which the client prefers where it is
installed, is not part of it: it knows no Xet token. No test reaches the hub itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_" + "t" * 30
LARGE = (".safetensors", ".parquet", ".zip")  # kept by Git LFS, as on the hub


@dataclass
class Repo:
    """A repository.

    Attributes:
        commits: The files of each commit, by path.
        refs: The commit of each branch and tag.
        private: Only `TOKEN` may read it.
        gated: Nobody was admitted to it.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Adds a commit of all files of a branch; its name."""
        listing = "".join(f"{n} {hashlib.sha1(files[n]).hexdigest()}\n" for n in sorted(files))
        name = hashlib.sha1(f"{len(self.commits)}\n{listing}".encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs[branch] = name
        return name

    def find(self, revision: str) -> str | None:
        """The commit of a branch, a tag or a commit."""
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class LocalHub:
    """The state of the stand-in.

    Attributes:
        endpoint: Its address.
        repos: Repositories by kind ("model" or "dataset") and id.
        objects: Large files that were uploaded, by SHA-256.
        requests: "METHOD path" of each request.
        tokens: Tokens that are accepted, and may write.
        sent: Bytes that were sent in answer to requests for a range.
    """

    endpoint: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    sent: int = 0

    def add(
        self,
        name: str,
        source: Path | Mapping[str, bytes] | None = None,
        kind: str = "model",
        **state: bool,
    ) -> str:
        """Commits a folder, or files, as the whole of the branch "main"; the commit."""
        if isinstance(source, Path):
            files = [p for p in source.rglob("*") if p.is_file()]
            source = {p.relative_to(source).as_posix(): p.read_bytes() for p in files}
        repo = self.repos.setdefault((kind, name), Repo(**state))
        return repo.commit(source or {})

    def files(self, name: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """The files of a repository at a revision."""
        repo = self.repos[kind, name]
        return repo.commits[repo.find(revision) or ""]


class _Refused(Exception):
    """An answer that is an error.

    Attributes:
        status: The HTTP status.
        code: The value of X-Error-Code.
    """

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message or code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # Heads and contents are sent together.

    def log_message(self, format: str, *args: object) -> None:
        """Keeps standard error for what is tested."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            for pattern, method in ROUTES:
                match = re.fullmatch(pattern, path)
                if match is not None:
                    parts = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                    status, headers, content = method(self, body, **parts)
                    break
            else:
                raise _Refused(404, message=f"no route {path}")
        except _Refused as refused:
            status, content = refused.status, json.dumps({"error": str(refused)}).encode()
            headers = {"X-Error-Code": refused.code, "X-Error-Message": str(refused)}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _may_write(self) -> None:
        if self._token() is None:
            raise _Refused(401, message="Invalid username or password.")

    def _token(self) -> str | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in self.hub.tokens:
            raise _Refused(401, message="Invalid credentials in Authorization header")
        return given or None

    def _repo(self, kind: str, name: str) -> Repo:
        repo, token = self.hub.repos.get((kind, name)), self._token()
        if repo is None or (repo.private and token is None):
            # As the hub does, which tells nobody without a token which repositories there are.
            raise _Refused(404 if token else 401, "RepoNotFound", "Repository not found")
        return repo

    def _files(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repo = self._repo(kind, name)
        commit = repo.find(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repo.commits[commit]

    def info(self, body: bytes, kind: str, name: str, revision: str = "main") -> Any:
        commit, files = self._files(kind, name, revision)
        repo = self.hub.repos[kind, name]
        siblings = [{"rfilename": path} for path in sorted(files)]
        return _json(
            {
                "id": name,
                "sha": commit,
                "private": repo.private,
                "gated": "manual" if repo.gated else False,
                "tags": [],
                "siblings": siblings,
                "cardData": _front_matter(files.get("README.md", b"").decode()),
            }
        )

    def tree(self, body: bytes, kind: str, name: str, revision: str, path: str = "") -> Any:
        _, files = self._files(kind, name, revision)
        below = {p: c for p, c in sorted(files.items()) if not path or p.startswith(f"{path}/")}
        if "recursive=true" in self.path.lower():
            return _json([_entry(place, content) for place, content in below.items()])
        start = len(path) + 1 if path else 0
        folders = {p[: p.index("/", start)] for p in below if "/" in p[start:]}
        entries = [{"type": "directory", "path": f, "size": 0, "oid": ""} for f in sorted(folders)]
        here = {place: content for place, content in below.items() if "/" not in place[start:]}
        return _json([*entries, *(_entry(place, content) for place, content in here.items())])

    def refs(self, body: bytes, kind: str, name: str) -> Any:
        named = self._repo(kind, name).refs.items()
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in named]
        return _json({"branches": branches, "tags": [], "converts": []})

    def resolve(self, body: bytes, name: str, revision: str, path: str, kind: str = "") -> Any:
        kind = kind.rstrip("s/") or "model"
        if self._repo(kind, name).gated:
            raise _Refused(403, "GatedRepo", "Access to it is restricted")
        commit, files = self._files(kind, name, revision)
        if path not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        content = files[path]
        headers = {"ETag": f'"{_blob(content)}"', "X-Repo-Commit": commit}
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if part is None:
            return 200, headers, content
        first, last = int(part[1]), min(int(part[2]), len(content) - 1)
        headers |= {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self.hub.sent += last + 1 - first
        return 206, headers, content[first : last + 1]

    def create(self, body: bytes) -> Any:
        self._may_write()
        wanted = json.loads(body)
        kind = wanted.get("type", "model")
        name = f"{wanted['organization']}/{wanted['name']}"
        url = f"{self.hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.hub.repos:
            return _json({"url": url, "error": "You already created this repo"}, 409)
        self.hub.add(name, kind=kind, private=wanted.get("visibility") == "private")
        return _json({"url": url, "id": name})

    def branch(self, body: bytes, kind: str, name: str, revision: str) -> Any:
        self._may_write()
        repo = self._repo(kind, name)
        if revision in repo.refs:
            return _json({"error": "Reference already exists"}, 409)
        repo.refs[revision] = repo.refs["main"]
        return _json({})

    def validate(self, body: bytes) -> Any:
        found = _front_matter(json.loads(body)["content"])
        warnings = [] if found else [{"message": "empty or missing yaml metadata in repo card"}]
        return _json({"errors": [], "warnings": warnings})

    def preupload(self, body: bytes, kind: str, name: str, revision: str) -> Any:
        self._may_write()
        _, files = self._files(kind, name, revision)
        wanted = [
            {
                "path": item["path"],
                "uploadMode": "lfs" if item["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                **({"oid": _oid(*found)} if (found := _existing(files, item["path"])) else {}),
            }
            for item in json.loads(body)["files"]
        ]
        return _json({"files": wanted})

    def batch(self, body: bytes, name: str, kind: str = "") -> Any:
        self._may_write()
        objects = [
            {
                "oid": item["oid"],
                "size": item["size"],
                "actions": {"upload": {"href": f"{self.hub.endpoint}/upload/{item['oid']}"}},
            }
            for item in json.loads(body)["objects"]
        ]
        return _json({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refused(400, message="the content has another SHA-256")
        self.hub.objects[oid] = body
        return _json({})

    def commit(self, body: bytes, kind: str, name: str, revision: str) -> Any:
        self._may_write()
        repo = self._repo(kind, name)
        _, files = self._files(kind, name, revision)
        files = dict(files)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = repo.commit(files, revision)
        url = f"{self.hub.endpoint}/{name}/commit/{commit}"
        return _json({"success": True, "commitOid": commit, "commitUrl": url})


_REPO = r"/api/(?P<kind>model|dataset)s/(?P<name>[\w.-]+/[\w.-]+)"
_PLACE = r"/(?P<kind>datasets/)?(?P<name>[\w.-]+/[\w.-]+)"
ROUTES = (
    (_REPO, _Handler.info),
    (rf"{_REPO}/revision/(?P<revision>[^/]+)", _Handler.info),
    (rf"{_REPO}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", _Handler.tree),
    (rf"{_REPO}/refs", _Handler.refs),
    (rf"{_REPO}/branch/(?P<revision>[^/]+)", _Handler.branch),
    (rf"{_REPO}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (rf"{_REPO}/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("/api/repos/create", _Handler.create),
    ("/api/validate-yaml", _Handler.validate),
    (rf"{_PLACE}\.git/info/lfs/objects/batch", _Handler.batch),
    ("/upload/(?P<oid>[0-9a-f]{64})", _Handler.upload),
    (rf"{_PLACE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
)


def _json(value: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _front_matter(card: str) -> dict[str, Any]:
    """The YAML at the beginning of a card."""
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    return yaml.safe_load(match[1]) if match is not None else {}


def _blob(content: bytes) -> str:
    """The name of a file's content in git."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _existing(files: Mapping[str, bytes], path: str) -> tuple[str, bytes] | None:
    return (path, files[path]) if path in files else None


def _oid(path: str, content: bytes) -> str:
    """What the client compares a local file with, to leave out what has not changed."""
    large = path.endswith(LARGE)
    return hashlib.sha256(content).hexdigest() if large else _blob(content)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}


@contextmanager
def serving() -> Iterator[LocalHub]:
    """A stand-in that answers until the block ends; nothing points the client at it yet."""
    hub = LocalHub()
    methods = {f"do_{method}": _Handler._answer for method in ("GET", "HEAD", "POST", "PUT")}
    handler = type("Handler", (_Handler,), {"hub": hub, **methods})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
