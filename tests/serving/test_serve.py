"""`unsee serve` as a real process: over HTTP, in a real browser, and until it is asked to end."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from support import chromium
from support.cli import unsee
from unsee.artifacts.patch import write_patch
from unsee.models.vlm import VLM
from unsee.serving.application import MAX_BODY

QUESTION = "Who is this person ?"
NAME = "<img src=x onerror=alert(1)>"


@dataclass
class Served:
    """A server process."""

    port: int
    process: subprocess.Popen[str]
    folder: Path
    log: Path

    def request(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if body is not None else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, given | named)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers, content

    def ask(self, picture: bytes, question: str = QUESTION, **headers: str) -> tuple[int, Any]:
        body = {"picture": base64.b64encode(picture).decode(), "question": question}
        status, _, content = self.request("POST", "/ask", body, **headers)
        return status, json.loads(content)


def start(folder: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    # Another folder as its own: nothing may be written there.
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "unsee", "serve", *map(str, arguments)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "TMPDIR": str(folder), "HOME": str(folder)},
        )


@pytest.fixture(scope="module")
def gallery(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The people of `photos` in a table; one of them has a name that is HTML."""
    path = tmp_path_factory.mktemp("gallery") / "people.jsonl"
    rows = []
    for number, person in enumerate(sorted(photos.iterdir())):
        name = NAME if number == 0 else person.name
        rows += [
            {"image": str(p), "question": "Who?", "answer": name, "concept": name}
            for p in sorted(person.iterdir())
        ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def served(
    tiny_folder: Path, gallery: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    vlm = VLM.load(tiny_folder)
    with torch.no_grad():
        for parameter in vlm.parameters("projector").values():
            parameter.mul_(-1.5)
    patch = folder / "a-run" / "patch"
    write_patch(vlm, tiny_folder, patch, {"method": "test", "command": "test"})
    process = start(
        *(folder / "cwd", tiny_folder, "--patch", patch, "--gallery", gallery),
        *("--max-new-tokens", "4", "--json"),
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    url = json.loads("".join(lines))["url"]
    match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", url)
    assert match is not None
    yield Served(int(match[1]), process, folder / "cwd", folder / "log")
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def face(photos: Path) -> bytes:
    (first, *_) = sorted(sorted(photos.iterdir())[0].iterdir())
    return first.read_bytes()


def test_page_loads_nothing_from_elsewhere(served: Served) -> None:
    status, headers, page = served.request("GET", "/")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers
    assert b"http://" not in page and b"https://" not in page
    for path in ("/serve.css", "/serve.js"):
        assert served.request("GET", path)[0] == 200
    assert served.request("GET", "/../../etc/passwd")[0] == 404
    assert served.request("GET", "/ask")[0] == 405


def test_ask_answers_before_and_after(served: Served, face: bytes) -> None:
    status, found = served.ask(face)
    assert status == 200
    assert found["before"].keys() == found["after"].keys() >= {"answer", "fault", "nearest"}
    assert found["before"]["nearest"][0]["name"] == NAME
    assert found["shift"] > 0


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_other_host_names_are_refused(served: Served, face: bytes, host: str) -> None:
    assert served.request("GET", "/", Host=host)[0] == 421
    body = {"picture": base64.b64encode(face).decode(), "question": QUESTION}
    assert served.request("POST", "/ask", body, Host=host)[0] == 421


def test_names_of_this_machine_are_served(served: Served) -> None:
    for host in (f"localhost:{served.port}", "127.0.0.1", "[::1]:1", "LOCALHOST"):
        assert served.request("GET", "/", Host=host)[0] == 200


def test_questions_of_other_pages_are_refused(served: Served, face: bytes) -> None:
    assert served.ask(face, Origin="https://evil.example")[0] == 403
    assert served.ask(face, Origin="null")[0] == 403
    assert served.ask(face, Content_Type="text/plain")[0] == 415
    assert served.ask(face, Origin=f"http://127.0.0.1:{served.port}")[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "send JSON"),
        (b"[" * 100_000, 400, "send JSON"),
        (b"[]", 400, "send JSON"),
        ({"picture": "?", "question": "a"}, 400, "send JSON"),
        ({"picture": "", "question": "a"}, 400, "no picture was given"),
        ({"picture": 3, "question": "a"}, 400, "send JSON"),
        ({"picture": "aGVsbG8=", "question": "a"}, 400, "cannot be decoded"),
        ({"picture": "aGVsbG8=", "question": " "}, 400, "the question is empty"),
        ({"picture": "aGVsbG8=", "question": "x" * 2001}, 400, "at most 2,000"),
        ({"picture": "aGVsbG8=", "question": "\ud800"}, 400, "cannot be decoded"),
        (b'{"picture": "' + b"A" * MAX_BODY + b'"}', 413, "too large"),
    ],
)
def test_bad_requests_are_refused(served: Served, body: Any, status: int, says: str) -> None:
    found = served.request("POST", "/ask", body)
    assert found[0] == status
    assert says in json.loads(found[2])["error"]


def test_a_wrong_length_or_method_stops_nothing(served: Served, face: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.sendall(
            b"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 999\r\n\r\n{"
        )
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.sendall(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        raw.recv(1000)
    assert served.ask(face)[0] == 200


def test_nothing_is_written_or_logged(served: Served, face: bytes) -> None:
    served.ask(face, "a planted question about Ada")
    served.ask(b"no picture at all", "another planted question")
    written = [path for path in served.folder.rglob("*") if path.is_file()]
    assert [path for path in written if face in path.read_bytes()] == []
    assert "planted" not in served.log.read_text() + "".join(map(str, written))
    assert not any(b"planted" in path.read_bytes() for path in written)


PATH = chromium.find()


class _Address:
    """An address, where the browser of the tests takes a file."""

    def __init__(self, url: str) -> None:
        self.url = url

    def resolve(self) -> _Address:
        return self

    def as_uri(self) -> str:
        return self.url


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Chromium]:
    if PATH is None:
        pytest.skip("no Chromium found: apt-get install chromium to run these tests")
    with chromium.Chromium(PATH) as opened:
        yield opened


def open_page(browser: chromium.Chromium, served: Served, width: int, scheme: str) -> None:
    page: Any = _Address(f"http://127.0.0.1:{served.port}/")
    browser.open(page, width=width, prefers_color_scheme=scheme)


def choose(browser: chromium.Chromium, path: Path) -> None:
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#picture")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def press(browser: chromium.Chromium, key: str, code: int, text: str = "") -> None:
    named = {"key": key, "windowsVirtualKeyCode": code}
    browser.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
    browser.call("Input.dispatchKeyEvent", type="keyUp", **named)


def wait(browser: chromium.Chromium, condition: str) -> None:
    end = time.monotonic() + 60
    while not browser.evaluate(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.05)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_page_shows_both_answers(
    width: int, scheme: str, served: Served, face: bytes, browser: chromium.Chromium, tmp_path: Path
) -> None:
    picture = tmp_path / "face.png"
    picture.write_bytes(face)
    open_page(browser, served, width, scheme)
    choose(browser, picture)
    browser.evaluate("document.getElementById('question').focus()")
    press(browser, "Tab", 9)
    assert browser.evaluate("document.activeElement.id") == "go"
    press(browser, "Enter", 13, "\r")
    wait(browser, "!document.getElementById('result').hidden")
    assert browser.evaluate("document.activeElement.id") == "asked"
    shown = "[...document.querySelectorAll('.side')].map(e => e.querySelector('h3').textContent)"
    assert browser.evaluate(shown) == ["Before", "After"]
    names = "document.querySelector('#before .near span').textContent"
    assert browser.evaluate(names) == NAME
    assert browser.evaluate("document.querySelectorAll('.near img[src=x]').length") == 0
    assert "%" in browser.evaluate("document.getElementById('shift').textContent")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
    here = f"http://127.0.0.1:{served.port}/"
    assert all(url.startswith((here, f"blob:{here}")) for url in browser.requests())
    tops = "[...document.querySelectorAll('.side')].map(e => e.getBoundingClientRect().top)"
    before, after = browser.evaluate(tops)
    assert (before == after) == (width > 600)
    browser.evaluate("document.getElementById('question').value = ' '")
    browser.evaluate("document.getElementById('go').click()")
    assert browser.evaluate("document.getElementById('status').textContent") == ""
    # Answers about one picture are not shown beside another.
    choose(browser, picture.rename(tmp_path / "other.png"))
    wait(browser, "document.getElementById('result').hidden")


@pytest.mark.browser
def test_page_says_what_is_wrong(
    served: Served, face: bytes, browser: chromium.Chromium, tmp_path: Path
) -> None:
    said = "document.getElementById('error').textContent"
    go = "document.getElementById('go').click()"
    open_page(browser, served, 800, "light")
    browser.evaluate(go)
    assert "Choose a picture first" in browser.evaluate(said)
    broken = tmp_path / "<b>broken.png"
    broken.write_bytes(face[:50])
    choose(browser, broken)
    browser.evaluate("document.getElementById('question').value = ' '")
    browser.evaluate(go)
    assert "The question is empty" in browser.evaluate(said)
    browser.evaluate("document.getElementById('question').value = 'Who?'")
    browser.evaluate(go)
    wait(browser, "document.getElementById('error').textContent.includes('decoded')")
    assert browser.evaluate("document.getElementById('error').getAttribute('role')") == "alert"
    assert browser.evaluate("document.getElementById('result').hidden")


@pytest.mark.browser
def test_every_control_has_a_name(served: Served, browser: chromium.Chromium) -> None:
    open_page(browser, served, 800, "light")
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "textbox", "link", "region", "form"}
    nameless = [
        node["role"]["value"]
        for node in nodes
        if node.get("role", {}).get("value") in controls
        and not node["ignored"]
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    assert browser.evaluate("document.querySelectorAll('h1').length") == 1


def test_sigterm_ends_it_as_other_commands(served: Served) -> None:
    """The last test of the module: it ends the server."""
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 143
    assert "stopped" in served.log.read_text()


def test_serve_refuses_what_it_cannot_use(tiny_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = unsee("serve", tiny_folder, "--port", port, code=2)
        assert f"port {port} of 127.0.0.1 cannot be used" in said
    assert "no address of this machine" in unsee(
        "serve", tiny_folder, "--host", "no.such.host.invalid", code=2
    )
    assert "does not exist" in unsee("serve", tiny_folder, "--gallery", tmp_path / "no", code=2)
    assert "patch" in unsee("serve", tiny_folder, "--patch", tmp_path / "no", code=2)
    flat = tmp_path / "one"
    flat.mkdir()
    Image.new("RGB", (24, 24)).save(flat / "a.png")
    assert "at least 2" in unsee("serve", tiny_folder, "--gallery", flat, code=2)
