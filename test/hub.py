# Copyright 2026 The mapanything_ros Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""A Hugging Face hub on this machine, for the hub's own client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

COMMIT = 'c' * 40


class Hub:
    """Repositories, which are folders below ``root`` named like their ids, and what was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        # Statuses and error codes that the hub answers with instead, by id.
        self.refusals: dict[str, tuple[int, str]] = {}
        self.endpoint = ''

    def served(self) -> set[str]:
        """Return the names of the files that were downloaded."""
        return {path.rpartition('/')[2] for path in self.asked if path.startswith('GET /')
                and '/resolve/' in path}

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body for a path."""
        parts = urlsplit(path).path.strip('/').split('/')
        about = parts[:2] == ['api', 'models']
        parts = parts[2:] if about else parts
        name = '/'.join(parts[:2])
        status, code = self.refusals.get(name, (404, 'RepoNotFound'))
        if name in self.refusals or not (self.root / name).is_dir():
            return status, {'X-Error-Code': code}, b''
        files = sorted(file for file in (self.root / name).rglob('*') if file.is_file())
        if about:
            return 200, {}, json.dumps(self._about(name, files, parts[2:])).encode()
        file = self.root / name / '/'.join(parts[4:])
        if not file.is_file():
            return 404, {'X-Error-Code': 'EntryNotFound'}, b''
        body = file.read_bytes()
        return 200, {'ETag': f'"{digest(body)}"', 'X-Repo-Commit': COMMIT}, body

    def _about(self, name: str, files: list[Path], question: list[str]) -> object:
        paths = [(str(file.relative_to(self.root / name)), file) for file in files]
        if question[:1] == ['tree']:
            return [
                {'type': 'file', 'path': path, 'size': file.stat().st_size,
                 'oid': digest(file.read_bytes())} for path, file in paths]
        return {
            'id': name, 'sha': COMMIT,
            'siblings': [
                {'rfilename': path, 'size': file.stat().st_size} for path, file in paths]}


def digest(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """Serve a folder of repositories on this machine alone."""
    hub = Hub(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self) -> None:
            self.reply(with_body=True)

        def do_HEAD(self) -> None:
            self.reply(with_body=False)

        def reply(self, with_body: bool) -> None:
            hub.asked.append(f'{self.command} {self.path}')
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, 'Content-Length': str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    hub.endpoint = f'http://127.0.0.1:{server.server_port}'
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
