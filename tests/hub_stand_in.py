# SPDX-License-Identifier: Apache-2.0
"""A small stand-in for the Hugging Face Hub on loopback, which the real client downloads from and pushes to.

It keeps repositories with commits and branches in memory, and has switches for what may go wrong on the way. Files that
end in .safetensors or .png are large ones (LFS): a download is sent on to their store, an upload goes there first.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

__all__ = ["TOKEN", "Faults", "Repository", "Request", "StandIn"]

TOKEN = "hf_canaryCANARYcanaryCANARY0123456789"
LARGE = (".safetensors", ".png", ".bin")


@dataclass
class Repository:
    """Commits by their hash, each with all of its files, and the commit that each branch is at."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], removed: Iterable[str] = (), branch: str = "main") -> str:
        """Add a commit to a branch, and return its hash."""
        content = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        for name in removed:
            content.pop(name, None)
        stamp = f"{len(self.commits)} {sorted((name, sha256(data)) for name, data in content.items())}"
        number = hashlib.sha1(stamp.encode()).hexdigest()
        self.commits[number] = content
        self.branches[branch] = number
        return number

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)


@dataclass
class Faults:
    """What goes wrong.

    Attributes:
        cuts: so many downloads of large files end half way.
        no_range: a part of a file is asked for, the whole comes.
        status: what every request is answered with, instead of what it asked for.
        silent: no request is answered at all, until this is unset.
        slow: seconds between two halves of a large file.
        after_resolution: called once a branch was turned into a commit.
    """

    cuts: int = 0
    no_range: bool = False
    status: int | None = None
    silent: bool = False
    slow: float = 0.0
    after_resolution: Callable[[], Any] | None = None


class Request(NamedTuple):
    method: str
    path: str
    part: str | None
    token: str | None


class StandIn:
    """The server; a context manager that runs it in a thread."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.store: dict[str, bytes] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.released = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> StandIn:
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), _Handler)
        self.server.daemon_threads = True
        self.server.hub = self
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    @contextmanager
    def down(self) -> Iterator[None]:
        """No server at this address while inside."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    @contextmanager
    def broken(self, **switches: Any) -> Iterator[Faults]:
        """With these faults while inside."""
        self.faults, self.released = Faults(**switches), threading.Event()
        try:
            yield self.faults
        finally:
            self.faults = Faults()
            self.released.set()

    def publish(self, name: str, files: Mapping[str, bytes], **options: Any) -> str:
        """Make a repository where there is none, and commit files to it."""
        return self.repositories.setdefault(name, Repository(**options)).commit(files)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> StandIn:
        return self.server.hub

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        body = self.read_body()
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range"), token))
        # A connection that is kept would outlive the server.
        self.close_connection = True
        faults = self.hub.faults
        if faults.silent:
            self.hub.released.wait(60)
            return
        if faults.status is not None:
            self.refuse(faults.status, "")
            return
        for method, pattern, act in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method.split():
                act(self, *found.groups(), body=body)
                return
        self.refuse(404, "")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str) -> None:
        body = b"{}" if self.command != "HEAD" else b""
        self.answer(status, body, {"X-Error-Code": code, "X-Error-Message": code, "Content-Type": "application/json"})

    def may_write(self) -> bool:
        if self.hub.requests[-1].token == TOKEN:
            return True
        self.refuse(401, "")
        return False

    def look_up(self, name: str, revision: str) -> tuple[Repository, str] | None:
        """The repository and the commit; refuses as the Hub does, which hides what is private."""
        repository = self.hub.repositories.get(name)
        known = self.hub.requests[-1].token == TOKEN
        if repository is None or (repository.private and not known):
            self.refuse(404 if known else 401, "RepoNotFound")
            return None
        if repository.gated:
            self.refuse(403, "GatedRepo")
            return None
        commit = repository.resolve(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound")
            return None
        return repository, commit

    # Reading

    def tell_model(self, name: str, revision: str | None, *, body: bytes) -> None:
        found = self.look_up(name, revision or "main")
        if found is None:
            return
        repository, commit = found
        facts = {"id": name, "modelId": name, "sha": commit, "private": repository.private, "tags": []}
        self.answer_json(facts | {"siblings": [{"rfilename": path} for path in repository.commits[commit]]})
        if self.hub.faults.after_resolution is not None:
            self.hub.faults.after_resolution()

    def tell_tree(self, name: str, revision: str, *, body: bytes) -> None:
        found = self.look_up(name, revision)
        if found is not None:
            files = found[0].commits[found[1]].items()
            self.answer_json(
                [{"type": "file", "path": path, "size": len(data), **sums(path, data)} for path, data in files]
            )

    def send_file(self, name: str, revision: str, path: str, *, body: bytes) -> None:
        found = self.look_up(name, revision)
        if found is None:
            return
        data = found[0].commits[found[1]].get(path)
        if data is None:
            self.refuse(404, "EntryNotFound")
        elif path.endswith(LARGE):
            self.hub.store[sha256(data)] = data
            headers = {"X-Repo-Commit": found[1], "X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
            self.answer(302, b"", {**headers, "Location": f"http://localhost:{self.hub.port}/store/{sha256(data)}"})
        else:
            self.send_data(data, {"X-Repo-Commit": found[1], "ETag": f'"{git_hash(data)}"'})

    def send_stored(self, number: str, *, body: bytes) -> None:
        self.send_data(self.hub.store[number], {"ETag": f'"{number}"'}, large=True)

    def send_data(self, data: bytes, headers: dict[str, str], *, large: bool = False) -> None:
        part, status = re.fullmatch(r"bytes=(\d+)-", self.hub.requests[-1].part or ""), 200
        if part and not self.hub.faults.no_range:
            status, whole, data = 206, len(data), data[int(part[1]) :]
            headers["Content-Range"] = f"bytes {part[1]}-{whole - 1}/{whole}"
        if not large or self.command == "HEAD":
            self.answer(status, data, headers)
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        half = len(data) // 2
        self.wfile.write(data[:half])
        self.wfile.flush()
        if self.hub.faults.cuts > 0:
            self.hub.faults.cuts -= 1
            return
        threading.Event().wait(self.hub.faults.slow)
        self.wfile.write(data[half:])

    # Writing

    def make_repository(self, *, body: bytes) -> None:
        if not self.may_write():
            return
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
        there = name in self.hub.repositories
        if not there:
            private = asked.get("private") or asked.get("visibility") == "private"
            self.hub.publish(name, {".gitattributes": b""}, private=bool(private))
        self.answer_json({"url": f"{self.hub.url}/{name}", "name": name, "id": "0"}, 409 if there else 200)

    def tell_kinds(self, _name: str, _revision: str, *, body: bytes) -> None:
        files = [
            {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular"}
            for each in json.loads(body)["files"]
        ]
        self.answer_json({"files": [{**each, "shouldIgnore": False, "oid": None} for each in files]})

    def tell_places(self, _name: str, *, body: bytes) -> None:
        objects = [
            {"oid": each["oid"], "size": each["size"], "authenticated": True, **self.upload_of(each["oid"])}
            for each in json.loads(body)["objects"]
        ]
        self.answer_json({"transfer": "basic", "objects": objects})

    def upload_of(self, number: str) -> dict[str, Any]:
        return {} if number in self.hub.store else {"actions": {"upload": {"href": f"{self.hub.url}/store/{number}"}}}

    def keep_stored(self, number: str, *, body: bytes) -> None:
        self.hub.store[number] = body
        self.answer(200)

    def make_commit(self, name: str, branch: str, *, body: bytes) -> None:
        if not self.may_write():
            return
        files, removed = {}, []
        for entry in map(json.loads, body.splitlines()):
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.store[value["oid"]]
            elif entry["key"] == "deletedFile":
                removed.append(value["path"])
        commit = self.hub.repositories[name].commit(files, removed, branch)
        self.answer_json({"commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "success": True})

    def approve(self, *, body: bytes) -> None:
        self.answer_json({"errors": [], "warnings": []})

    def tell_name(self, *, body: bytes) -> None:
        if self.may_write():
            self.answer_json({"name": "someone", "type": "user", "orgs": []})


_NAME = r"([^/]+/[^/]+)"
_ROUTES: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("GET HEAD", rf"/api/models/{_NAME}(?:/revision/(.+))?", _Handler.tell_model),
    ("GET", rf"/api/models/{_NAME}/tree/([^/]+)", _Handler.tell_tree),
    ("GET HEAD", rf"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.send_file),
    ("GET HEAD", r"/store/(\w+)", _Handler.send_stored),
    ("PUT", r"/store/(\w+)", _Handler.keep_stored),
    ("GET", r"/api/whoami-v2", _Handler.tell_name),
    ("POST", r"/api/repos/create", _Handler.make_repository),
    ("POST", r"/api/validate-yaml", _Handler.approve),
    ("POST", rf"/api/models/{_NAME}/preupload/([^/]+)", _Handler.tell_kinds),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.tell_places),
    ("POST", rf"/api/models/{_NAME}/commit/([^/]+)", _Handler.make_commit),
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sums(path: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 130}} if path.endswith(LARGE) else {}
    return {"oid": git_hash(data), **large}
