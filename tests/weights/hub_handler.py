"""The requests of a hub that tests talk to: its answers, and what goes wrong with them on demand."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
import socket
import struct
import sys
import termios
import time
import traceback
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from tests.weights.hub_server import HubServer

HANGS = 3600  # seconds after which nothing will come
_CONNECTED = (1, 8)  # states of a connection that can still send: TCP_ESTABLISHED and TCP_CLOSE_WAIT of Linux
LFS_SUFFIXES = ('.safetensors', '.bin')
HTML_PAGE = b'<!DOCTYPE html><html><body>Please sign in to this network.</body></html>'


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests whose method and path match.

    Kinds: ``status`` (answer with ``status`` and ``headers``), ``truncate``, ``reset`` and ``stall`` (each after half
    the body has arrived), ``flip`` (one bit), ``replace`` (nothing more), ``html`` (a web page with status 200),
    ``ignore_range`` (answer a range request with the whole file). A ``body`` takes the place of the file.
    """

    kind: str
    times: int = 1
    method: str = 'GET'
    path: str = ''
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b''


@dataclass(frozen=True)
class Request:
    """One request that arrived; the names of its headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class File:
    content: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        blob = b'blob %d\0' % len(self.content) + self.content
        return hashlib.sha1(blob).hexdigest()

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.content).hexdigest() if self.is_lfs else self.oid


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    hub: HubServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the tests, anything else is a mistake in this file."""
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            self.hub.mistakes.append(traceback.format_exc())


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Server

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        length = int(self.headers.get('Content-Length') or 0)
        chunked = 'chunked' in self.headers.get('Transfer-Encoding', '')
        self.body = self._read_chunks() if chunked else self.rfile.read(length)
        hub.take(Request(self.command, path, {key.lower(): value for key, value in self.headers.items()}))
        self.fault = hub.take_fault(self.command, path)
        if self.fault is not None and self.fault.kind == 'status':
            self._send(self.fault.status, json.dumps({'error': 'injected'}).encode(), dict(self.fault.headers))
            return
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match is not None:
                getattr(self, method)(*match.groups())
                return
        self._error(404, 'RepoNotFound', 'Repository not found')

    def _read_chunks(self) -> bytes:
        content = b''
        while size := int(self.rfile.readline().split(b';')[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    # Answers

    def _send(self, status: int, body: bytes = b'', headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {'Content-Type': 'application/octet-stream', 'Content-Length': str(len(body)), **(headers or {})}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != 'HEAD':
            self._write(body)

    def _write(self, body: bytes) -> None:
        kind = self.fault.kind if self.fault is not None else ''
        if kind not in ('truncate', 'reset', 'stall'):
            self.wfile.write(body)
            return
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self._wait_until_all_has_arrived()
        if kind == 'stall':
            self.server.hub.stalled.add(self.client_address)
            self.server.hub.released.wait()
        self.close_connection = True
        if kind == 'reset':
            # It would discard what has not arrived.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            os.close(self.connection.detach())
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def _wait_until_all_has_arrived(self) -> None:
        """Wait until the client's system has every byte that was sent, or the client is gone."""
        if sys.platform != 'linux':
            time.sleep(0.1)
            return
        while struct.unpack('i', fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4)))[0]:
            if self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in _CONNECTED:
                return
            time.sleep(0.001)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {'Content-Type': 'application/json'})

    def _error(self, status: int, code: str, message: str) -> None:
        self._send(status, b'', {'X-Error-Code': code, 'X-Error-Message': message})

    def _send_file(self, content: bytes, etag: str, headers: dict[str, str] | None = None) -> None:
        """The file, or the range of it that was asked for, spoiled as the fault says."""
        kind = self.fault.kind if self.fault is not None else ''
        if kind == 'html':
            self._send(200, HTML_PAGE, {'Content-Type': 'text/html'})
            return
        if self.fault is not None and self.fault.body:
            content, etag = self.fault.body, hashlib.md5(self.fault.body).hexdigest()
        if kind == 'flip':
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        headers = {'ETag': f'"{etag}"', 'Accept-Ranges': 'bytes', **(headers or {})}
        match = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
        if match is None or kind == 'ignore_range' or self.headers.get('If-Range', f'"{etag}"') != f'"{etag}"':
            self._send(200, content, headers)
            return
        start = int(match.group(1))
        if start >= len(content):
            self._send(416, b'', {'Content-Range': f'bytes */{len(content)}'})
            return
        headers['Content-Range'] = f'bytes {start}-{len(content) - 1}/{len(content)}'
        self._send(206, content[start:], headers)

    # Reading

    def _plain_file(self, name: str) -> None:
        content = self.server.hub.files.get(name)
        if content is None:
            self._send(404)
        else:
            self._send_file(content, hashlib.md5(content).hexdigest())

    def _allowed(self, repo: str) -> bool:
        hub = self.server.hub
        if repo in hub.private and self.headers.get('Authorization') != f'Bearer {hub.token}':
            self._error(401, 'RepoNotFound', 'Repository not found')
            return False
        if repo not in hub.repos:
            self._error(404, 'RepoNotFound', 'Repository not found')
            return False
        return True

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        if not self._allowed(repo):
            return
        commit = self.server.hub.find(repo, revision)
        if commit is None:
            self._error(404, 'RevisionNotFound', 'Invalid rev id')
            return
        oid, tree = commit
        file = tree.get(name)
        if file is None:
            self._send(404, b'', {'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': oid})
            return
        headers = {'X-Repo-Commit': oid, 'ETag': f'"{file.etag}"'}
        if file.is_lfs:
            size = {'X-Linked-Size': str(len(file.content)), 'X-Linked-Etag': f'"{file.etag}"'}
            self._send(302, b'', {**headers, **size, 'Location': f'{self.server.hub.cdn}/cdn/{file.etag}'})
        else:
            self._send_file(file.content, file.etag, headers)

    def _cdn(self, etag: str) -> None:
        self._send_file(self.server.hub.lfs[etag], etag)

    def _repo_info(self, repo: str, revision: str | None = None) -> None:
        if not self._allowed(repo):
            return
        commit = self.server.hub.find(repo, revision or 'main')
        if commit is None:
            self._json({'_id': '0', 'id': repo, 'modelId': repo, 'siblings': [], 'tags': [], 'sha': None})
            return
        siblings = [{'rfilename': path} for path in commit[1]]
        self._json({'_id': '0', 'id': repo, 'modelId': repo, 'sha': commit[0], 'siblings': siblings, 'tags': []})

    def _paths_info(self, repo: str, revision: str) -> None:
        commit = self.server.hub.find(repo, revision)
        if commit is None:
            self._error(404, 'RevisionNotFound', 'Invalid rev id')
            return
        paths = parse_qs(self.body.decode())['paths']
        self._json([self._path_info(path, commit[1][path]) for path in paths if path in commit[1]])

    @staticmethod
    def _path_info(path: str, file: File) -> dict[str, Any]:
        info = {'type': 'file', 'path': path, 'size': len(file.content), 'oid': file.oid}
        if file.is_lfs:
            info['lfs'] = {'oid': file.etag, 'size': len(file.content), 'pointerSize': 134}
        return info

    # Writing

    def _is_writer(self) -> bool:
        hub = self.server.hub
        if hub.token is None or self.headers.get('Authorization') != f'Bearer {hub.token}':
            self._send(401, json.dumps({'error': 'Invalid username or password.'}).encode())
            return False
        return True

    def _create(self) -> None:
        if not self._is_writer():
            return
        request = json.loads(self.body)
        repo = f'{request["organization"]}/{request["name"]}' if request.get('organization') else request['name']
        if repo in self.server.hub.repos:
            url = f'{self.server.hub.endpoint}/{repo}'
            self._json({'error': 'You already created this model repo', 'url': url}, 409)
            return
        self.server.hub.repos[repo] = []
        if request.get('private') or request.get('visibility') == 'private':
            self.server.hub.private.add(repo)
        self._json({'url': f'{self.server.hub.endpoint}/{repo}', 'name': repo, 'id': '0'})

    def _validate_yaml(self) -> None:
        self._json({'errors': [], 'warnings': []})

    def _preupload(self, repo: str, revision: str) -> None:
        if not self._is_writer():
            return
        if repo not in self.server.hub.repos:
            self._error(404, 'RepoNotFound', 'Repository not found')
            return
        files = []
        for path in (file['path'] for file in json.loads(self.body)['files']):
            mode = 'lfs' if path.endswith(LFS_SUFFIXES) else 'regular'
            files.append({'path': path, 'uploadMode': mode, 'shouldIgnore': False})
        self._json({'files': files})

    def _lfs_batch(self, repo: str) -> None:
        objects = []
        for item in json.loads(self.body)['objects']:
            href = f'{self.server.hub.endpoint}/lfs/{item["oid"]}'
            actions = {} if item['oid'] in self.server.hub.lfs else {'actions': {'upload': {'href': href}}}
            objects.append({'oid': item['oid'], 'size': item['size'], **actions})
        self._send(
            200,
            json.dumps({'transfer': 'basic', 'objects': objects}).encode(),
            {'Content-Type': 'application/vnd.git-lfs+json'},
        )

    def _lfs_upload(self, oid: str) -> None:
        content = self.body
        if self.fault is not None and self.fault.kind == 'flip':
            content = content[:-1] + bytes([content[-1] ^ 1])
        elif hashlib.sha256(content).hexdigest() != oid:
            self._send(400)
            return
        self.server.hub.lfs[oid] = content
        self._send(200)

    def _commit(self, repo: str, revision: str) -> None:
        if not self._is_writer():
            return
        files: dict[str, bytes] = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item['value']
            if item['key'] == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            elif item['key'] == 'lfsFile':
                files[value['path']] = self.server.hub.lfs[value['oid']]
        oid = self.server.hub.commit(repo, files)
        self._json({'success': True, 'commitOid': oid, 'commitUrl': f'{self.server.hub.endpoint}/{repo}/commit/{oid}'})


_REPO = r'([\w.\-]+/[\w.\-]+)'
_ROUTES = (
    (r'/files/(.+)', '_plain_file'),
    (r'/cdn/([0-9a-f]{64})', '_cdn'),
    (rf'/{_REPO}/resolve/([^/]+)/(.+)', '_resolve'),
    (rf'/api/models/{_REPO}', '_repo_info'),
    (rf'/api/models/{_REPO}/revision/([^/]+)', '_repo_info'),
    (rf'/api/models/{_REPO}/paths-info/([^/]+)', '_paths_info'),
    (r'/api/repos/create', '_create'),
    (r'/api/validate-yaml', '_validate_yaml'),
    (rf'/api/models/{_REPO}/preupload/([^/]+)', '_preupload'),
    (rf'/{_REPO}\.git/info/lfs/objects/batch', '_lfs_batch'),
    (r'/lfs/([0-9a-f]{64})', '_lfs_upload'),
    (rf'/api/models/{_REPO}/commit/([^/]+)', '_commit'),
)
