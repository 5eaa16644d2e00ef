"""A hub on this machine: repositories as the hub's libraries ask for them, each at one commit; takes uploads.

A folder ORGANISATION/NAME is a model, datasets/ORGANISATION/NAME a data set.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"


LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "other")
PIPELINES = ("text-classification", "question-answering", "token-classification")


def faults_of_card(card: str) -> Iterator[str]:
    """What the hub refuses in the metadata of a model card: docs/hub/model-cards, and its model-index format."""
    front = yaml.safe_load(card.split("---")[1])
    if not isinstance(front, dict):
        yield "no metadata"
        return
    if front.get("license", "other") not in LICENCES:
        yield f"license: {front['license']}"
    if front.get("pipeline_tag") not in PIPELINES:
        yield f"pipeline_tag: {front.get('pipeline_tag')}"
    if not re.fullmatch("[a-z]{2,3}", front.get("language", "en")):
        yield f"language: {front['language']}"
    for name in (front.get("base_model", "a/b"), *front.get("datasets", ())):
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            yield f"not an id: {name}"
    for entry in front.get("model-index", ()):
        if not isinstance(entry.get("name"), str) or not entry.get("results"):
            yield "model-index needs a name and results"
        for result in entry["results"]:
            if not isinstance(result["task"]["type"], str) or {"type", "name"} - set(result["dataset"]):
                yield "a result needs task.type, dataset.type and dataset.name"
            for metric in result["metrics"]:
                if not isinstance(metric["type"], str) or not isinstance(metric["value"], int | float):
                    yield f"metric {metric}"


class Hub(ThreadingHTTPServer):
    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.requests = folder, []  # "METHOD /path" of each
        self.authorizations: list[str] = []
        self.created: list[dict[str, object]] = []
        self.large_files: dict[str, bytes] = {}  # by sha256, until a commit names them

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        self.server.authorizations += self.headers.get_all("Authorization", [])
        kind, _, rest = path.removeprefix("/api/").partition("/")
        if path.startswith("/api/") and kind in ("models", "datasets"):
            self._about("" if kind == "models" else f"{kind}/", rest)
            return
        repository, _, rest = path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        file = self.server.folder / repository / name
        if revision not in ("main", COMMIT) or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if rest else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(f"POST {path}")
        self.server.authorizations += self.headers.get_all("Authorization", [])
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            errors = list(faults_of_card(json.loads(content)["content"]))
            self._send(
                [{"errors": [{"message": error} for error in errors], "warnings": []}], False, 400 if errors else 200
            )
        elif path == "/api/repos/create":
            self.server.created.append(json.loads(content))
            name = f"{self.server.created[-1].get('organization', 'ann')}/{self.server.created[-1]['name']}"
            (self.server.folder / name).mkdir(parents=True, exist_ok=True)
            self._send([{"url": f"{self.server.address}/{name}", "name": name}], as_list=False)
        elif "/preupload/" in path:
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith((".safetensors", ".onnx")) else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(content)["files"]
            ]
            self._send([{"files": files}], as_list=False)
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.address}/lfs/{one['oid']}"}}}
                for one in json.loads(content)["objects"]
            ]
            self._send([{"transfer": "basic", "objects": objects}], as_list=False)
        elif "/commit/" in path:
            self._commit("/".join(path.split("/")[3:5]), [json.loads(line) for line in content.splitlines()])
        else:
            self._paths_info(path, parse_qs(content.decode())["paths"])

    def do_PUT(self) -> None:
        """A large file."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.removeprefix("/lfs/")
        matches = hashlib.sha256(content).hexdigest() == oid
        self.server.large_files[oid] = content
        self._send([{}], False, 200 if matches else 400)

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            path = self.server.folder / name / value.get("path", "")
            path.parent.mkdir(parents=True, exist_ok=True)
            if line["key"] == "file":
                path.write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                path.write_bytes(self.server.large_files[value["oid"]])
        url = f"{self.server.address}/{name}/commit/{COMMIT}"
        self._send([{"commitUrl": url, "commitOid": COMMIT, "success": True}], as_list=False)

    def _paths_info(self, path: str, wanted: list[str]) -> None:
        """Which of the wanted paths exist."""
        folder = self.server.folder / "datasets" / "/".join(path.split("/")[3:5])
        self._send(self._entry(folder, folder / name) for name in wanted if (folder / name).exists())

    def _about(self, prefix: str, path: str) -> None:
        """What a repository is, or (`tree`) which files a folder of it holds."""
        organisation, name, *rest = path.split("/")
        folder = self.server.folder / f"{prefix}{organisation}" / name
        if not folder.is_dir():
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if rest[:1] == ["tree"]:
            self._send(self._entry(folder, file) for file in files)
            return
        siblings = [{"rfilename": str(file.relative_to(folder))} for file in files]
        self._send([{"id": f"{organisation}/{name}", "sha": COMMIT, "siblings": siblings, "tags": []}], as_list=False)

    @staticmethod
    def _entry(folder: Path, path: Path) -> dict[str, object]:
        kind = "directory" if path.is_dir() else "file"
        oid = hashlib.sha1(str(path).encode()).hexdigest()
        return {"type": kind, "path": str(path.relative_to(folder)), "oid": oid, "size": path.stat().st_size}

    def _send(self, found: Iterable[dict[str, Any]], as_list: bool = True, status: int = 200) -> None:
        items = list(found)
        content = json.dumps(items if as_list else items[0]).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    """`folder` holds the repositories."""
    hub = Hub(folder)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
