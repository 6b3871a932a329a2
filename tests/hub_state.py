"""What a hub on the loopback interface holds, what it is asked for, and where it misbehaves."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from typing import Any

_HANGS = 86400  # seconds after which nothing will come
LFS_SUFFIXES = ('.safetensors', '.bin')


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


class HubState:
    """Repositories, plain files, requests that arrived, and faults to come."""

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
            assert self._arrived.wait_for(lambda: self.count(method, part), timeout=_HANGS), f'no {method} of {part}'

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, File]] | None:
        commits = self.repos.get(repo, [])
        if revision == 'main' and commits:
            return commits[-1]
        return next((commit for commit in commits if commit[0] == revision), None)
