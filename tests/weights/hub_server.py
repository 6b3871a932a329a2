"""A Hugging Face Hub on the loopback interface that speaks to the real client, and misbehaves where a test asks for it.

It holds repositories in memory (commits of files, large ones behind a redirect to another host as on the real hub),
accepts uploads (preupload, LFS batch, commit), and serves plain files under ``/files/`` with ranges and entity tags.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.weights.hub_handler import HANGS, LFS_SUFFIXES, Fault, File, Handler, Request, Server


class HubServer:
    """The state of the hub, and the address it listens on."""

    def __init__(self) -> None:
        self.repos: dict[str, list[tuple[str, dict[str, File]]]] = {}
        self.private: set[str] = set()
        self.files: dict[str, bytes] = {}
        self.lfs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.token: str | None = None
        self.mistakes: list[str] = []
        self.stalled: set[Any] = set()
        self.released = threading.Event()
        self.lock = threading.Lock()
        self._arrived = threading.Condition()
        self._server = Server(('127.0.0.1', 0), Handler)
        self._server.hub = self
        self.port = self._server.server_address[1]
        self.endpoint = f'http://127.0.0.1:{self.port}'
        self.cdn = f'http://localhost:{self.port}'  # another host to the client, as on the real hub

    def url(self, name: str) -> str:
        """URL of the plain file ``name``."""
        return f'{self.endpoint}/files/{name}'

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add a commit with ``files`` to ``repo``, which is made if need be; returns its hash."""
        stored = {path: File(content, path.endswith(LFS_SUFFIXES)) for path, content in files.items()}
        for file in stored.values():
            self.lfs[file.etag] = file.content
        with self.lock:
            commits = self.repos.setdefault(repo, [])
            tree = {**(commits[-1][1] if commits else {}), **stored}
            text = json.dumps([repo, len(commits), {path: file.oid for path, file in tree.items()}])
            commits.append((hashlib.sha1(text.encode()).hexdigest(), tree))
            return commits[-1][0]

    def fail(self, kind: str, **fields: Any) -> Fault:
        """Make requests fail from now on; returns the fault."""
        fault = Fault(kind, **fields)
        with self.lock:
            self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Stop all misbehaviour."""
        with self.lock:
            self.faults.clear()
        self.released.set()

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def count(self, method: str, part: str) -> int:
        """How many requests with this method and this part in their path arrived."""
        return sum(1 for request in self.requests if request.method == method and part in request.path)

    def take(self, request: Request) -> None:
        """Keep a request that arrived."""
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()

    def wait_for(self, method: str, part: str) -> None:
        """Wait until a request with this method and this part in its path has arrived."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.count(method, part), timeout=HANGS), f'no {method} of {part}'

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, File]] | None:
        commits = self.repos.get(repo, [])
        if revision == 'main' and commits:
            return commits[-1]
        return next((commit for commit in commits if commit[0] == revision), None)

    @contextmanager
    def running(self) -> Iterator['HubServer']:
        """Serve while the body runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={'poll_interval': 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            self._server.server_close()
        assert self.mistakes == [], self.mistakes[0]
