# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A bucket that is a local folder: gs:// of this process for fsspec, and for TensorStore by HTTP.

As much of Google's JSON interface as Orbax's arrays need: objects are read, in parts too, written if
none was there or it is the one that is known, listed and removed.
"""

import atexit
import functools
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import types
import urllib.parse

import fsspec
from fsspec.implementations import dirfs
from fsspec.implementations import local

NAME = "bucket"
URL = f"gs://{NAME}"


@functools.cache  # TensorStore asks once where Google is.
def serve() -> pathlib.Path:
    """Makes a local folder gs://bucket for the rest of this process, and returns it."""
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / NAME).mkdir()
    handler = functools.partial(_Handler, folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["TENSORSTORE_GCS_HTTP_URL"] = f"http://127.0.0.1:{server.server_port}"
    os.environ["GOOGLE_AUTH_TOKEN_FOR_TESTING"] = "nobody"

    class Files(dirfs.DirFileSystem):
        """The folder, whose names are those of objects."""

        protocol = ("gs", "gcs")

        def __init__(self, *arguments, **options):
            del arguments, options
            super().__init__(path=str(folder), fs=local.LocalFileSystem(auto_mkdir=True))

        @classmethod
        def _strip_protocol(cls, path):
            return path.partition("://")[2].strip("/") if "://" in path else path.strip("/")

    for name in Files.protocol:
        fsspec.register_implementation(name, Files, clobber=True)
    # Orbax asks whether folders of the bucket are more than names, before it removes one.
    client = types.SimpleNamespace(get_bucket=lambda name: types.SimpleNamespace())
    sys.modules["google.cloud.storage"] = types.SimpleNamespace(Client=lambda: client)
    return folder / NAME


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    writing = threading.Lock()

    def __init__(self, folder: pathlib.Path, *arguments):
        self.folder = folder
        super().__init__(*arguments)

    def do_GET(self):
        bucket, name, query = self._asked()
        if name is None:
            return self._answer(200, json.dumps(self._listed(bucket, query)).encode())
        path = self._path(bucket, name)
        if not path.is_file():
            return self._answer(404)
        data, generation = path.read_bytes(), _generation(path)
        if query.get("ifGenerationNotMatch") == generation:
            return self._answer(304)
        if query.get("ifGenerationMatch", generation) != generation:
            return self._answer(412)
        headers = {"x-goog-generation": generation}
        if "alt" not in query:
            return self._answer(200, json.dumps(_described(name, path)).encode())
        if asked := self.headers["Range"]:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin = int(first) if first else max(len(data) - int(last), 0)
            end = min(int(last) + 1, len(data)) if first and last else len(data)
            if begin >= len(data):
                return self._answer(416)
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            return self._answer(206, data[begin:end], headers)
        return self._answer(200, data, headers)

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"] or 0))
        bucket, _, query = self._asked()
        path = self._path(bucket, query["name"])
        with self.writing:
            there = _generation(path) if path.is_file() else "0"
            if query.get("ifGenerationMatch", there) != there:
                return self._answer(412)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return self._answer(200, json.dumps(_described(query["name"], path)).encode())

    def do_DELETE(self):
        bucket, name, _ = self._asked()
        path = self._path(bucket, name)
        if not path.is_file():
            return self._answer(404)
        path.unlink()
        return self._answer(204)

    def _asked(self) -> tuple[str, str | None, dict[str, str]]:
        """Bucket, object and query of /storage/v1/b/BUCKET/o/OBJECT?QUERY."""
        url = urllib.parse.urlsplit(self.path)
        bucket, _, rest = url.path.partition("/b/")[2].partition("/o")
        name = urllib.parse.unquote(rest[1:]) if rest else None
        return bucket, name, dict(urllib.parse.parse_qsl(url.query))

    def _path(self, bucket: str, name: str) -> pathlib.Path:
        return self.folder / bucket / name

    def _listed(self, bucket: str, query: dict[str, str]) -> dict:
        root = self.folder / bucket
        names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        first, end = query.get("startOffset", ""), query.get("endOffset", "\U0010ffff")
        found = [name for name in names if name.startswith(query.get("prefix", ""))]
        return {"items": [_described(one, root / one) for one in found if first <= one < end]}

    def _answer(self, code: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if code not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def _generation(path: pathlib.Path) -> str:
    state = path.stat()
    digest = hashlib.sha256(f"{state.st_mtime_ns} {state.st_ino} {state.st_size}".encode())
    return str(int.from_bytes(digest.digest()[:6], "big") + 1)


def _described(name: str, path: pathlib.Path) -> dict[str, str]:
    return {"name": name, "generation": _generation(path), "size": str(path.stat().st_size)}
