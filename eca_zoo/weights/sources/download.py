"""Downloading one file from a URL: retried with back-off, resumed where possible, verified before it gets its name."""

import base64
import email.utils
import errno
import http.client
import logging
import netrc
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from eca_zoo.files import hash_file, move_into_place, storage_error

_logger = logging.getLogger(__name__)

Progress = Callable[[int], None]

_CHUNK = 1 << 18
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)
_FORGIVEN_AFTER = 1 << 20  # bytes of new data after which an interruption is forgiven
_ABANDONED = 120.0  # seconds without a write after which a partial file of another machine counts as abandoned


class SourceError(Exception):
    """Why one source did not deliver; one line, without the source's name."""


class _Retry(Exception):  # noqa: N818 - a signal inside this module, never an error that anybody sees
    """An interruption that another try may get over."""

    def __init__(self, reason: str, delay: float | None = None) -> None:
        super().__init__(reason)
        self.delay = delay


@dataclass(frozen=True)
class RetryPolicy:
    """How patiently a source is tried; all times in seconds.

    ``attempts`` tries fail in a row before the source is given up. Between them lies ``first_delay``, doubled each time
    up to ``max_delay``, or what the server asks for with ``Retry-After``, unless that is longer than
    ``max_retry_after``. ``timeout`` is how long a server may stay silent.
    """

    attempts: int = 5
    first_delay: float = 1.0
    max_delay: float = 30.0
    max_retry_after: float = 120.0
    timeout: float = 10.0


def default_policy() -> RetryPolicy:
    """The default, with the time-out that ``HF_HUB_DOWNLOAD_TIMEOUT`` sets for hub downloads too."""
    from huggingface_hub import constants

    return RetryPolicy(timeout=float(constants.HF_HUB_DOWNLOAD_TIMEOUT))


def download(
    url: str, path: Path, size: int, sha256: str, policy: RetryPolicy, progress: Progress = lambda count: None
) -> None:
    """Download ``url`` to ``path``; call it with the file's lock held.

    A partial file of an interrupted download is continued. The file gets its name after its size and hash were found
    right.

    Args:
        url: https, http or file.
        path: the final name.
        size: expected bytes.
        sha256: expected hash, hexadecimal.
        policy: how patiently.
        progress: is told the number of bytes that arrived; negative where some have to be fetched again.

    Raises:
        SourceError: the source does not deliver, or delivers other bytes (these are removed).
        StorageError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _claim_partial(path)
    except OSError as error:
        raise storage_error(path, error) from None
    try:
        transfer = _Transfer(url, part, size, policy, progress)
        resumed = transfer.received
        progress(resumed)
        transfer.run()
        found, found_size = hash_file(part)
        if found != sha256 and resumed:
            _logger.info('%s: the continued download has a wrong SHA-256; downloading again from the start', url)
            transfer.restart()
            found, found_size = hash_file(part)
        if found != sha256:
            progress(-found_size)
            part.unlink()
            raise wrong_bytes(found, found_size, sha256, size)
        move_into_place(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise storage_error(part, error) from None


def wrong_bytes(found: str, found_size: int, sha256: str, size: int) -> SourceError:
    """The error for a source whose bytes are not those of the manifest."""
    more = 'or more ' if found_size > size else ''
    return SourceError(
        f'it delivers other bytes: SHA-256 {found} ({found_size} {more}bytes), expected {sha256} ({size} bytes); '
        'nothing was kept; tell whoever runs it, or list another source'
    )


def _claim_partial(path: Path) -> Path:
    """A name for the partial file that only this process uses, with the content of an abandoned one if there is one.

    A rename is atomic: even where locks do not work, two processes never continue one partial file.
    """
    own = path.with_name(f'.{path.name}.{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns():x}.part')
    others = path.parent.glob(f'.{path.name}.*.part')
    abandoned = [part for part in others if _is_abandoned(part) and os.access(part, os.W_OK)]
    for part in sorted(abandoned, key=lambda part: part.stat().st_size, reverse=True):
        if own.exists():
            part.unlink(missing_ok=True)
        else:
            os.replace(part, own)
    return own


def _is_abandoned(part: Path) -> bool:
    host, _, rest = part.name.removesuffix('.part').rpartition('-')[0].rpartition('-')
    # On Windows os.kill would end the process that it is asked about.
    if os.name == 'posix' and host.endswith(f'.{socket.gethostname()}') and rest.isdigit():
        if int(rest) == os.getpid():
            return True
        try:
            os.kill(int(rest), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    return time.time() - part.stat().st_mtime > _ABANDONED


@dataclass
class _Transfer:
    """Bringing the partial file ``part`` to a complete response of the server at ``url``."""

    url: str
    part: Path
    size: int
    policy: RetryPolicy
    progress: Progress
    etag: str | None = None

    @property
    def received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def restart(self) -> None:
        """Begin anew, without what was received."""
        self.progress(-self.received)
        self.part.unlink(missing_ok=True)
        self.etag = None
        self.run()

    def run(self) -> None:
        """Ask the server for what is missing until it has sent everything.

        Raises:
            SourceError: it does not.
            OSError: writing failed.
        """
        failures, delay, before = 0, self.policy.first_delay, self.received
        if shutil.disk_usage(self.part.parent).free < self.size - before:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.part))
        while True:
            try:
                return self._request()
            except _Retry as interruption:
                failures = 1 if self.received - before > _FORGIVEN_AFTER else failures + 1
                before = self.received
                if failures >= self.policy.attempts:
                    tries = f'{failures} tries, {before} of {self.size} bytes received; try again later'
                    raise SourceError(f'{interruption} ({tries})') from None
                wait = interruption.delay
                if wait is None:
                    wait, delay = delay, min(delay * 2, self.policy.max_delay)
                elif wait > self.policy.max_retry_after:
                    raise SourceError(f'{interruption}, and asks to come back in {wait:.0f} s') from None
                _logger.info('%s: %s; trying again in %.1f s', self.url, interruption, wait)
                time.sleep(wait)

    def _request(self) -> None:
        offset = self.received
        try:
            response: Any = urllib.request.urlopen(self._make_request(offset), timeout=self.policy.timeout)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and offset:  # the partial file is longer than the file there: another content
                    self.progress(-offset)
                    self.part.unlink()
                    raise _Retry('the server has no such range', 0.0) from None
                raise _status_error(self.url, error.code, error.headers.get('Retry-After')) from None
        except (OSError, http.client.HTTPException) as error:
            raise _connection_error(self.url, error) from None
        with response:
            etag = response.headers.get('ETag')
            self.etag = None if etag is None or etag.startswith('W/') else etag
            continues = getattr(response, 'status', None) == 206 and _starts_at(response.headers, offset)
            keep = offset if continues else 0
            self.progress(keep - offset)
            with self.part.open('r+b' if self.part.exists() else 'xb') as file:
                file.truncate(keep)
                file.seek(keep)
                self._copy(response, file, self.size - keep)
                file.flush()
                os.fsync(file.fileno())

    def _make_request(self, offset: int) -> urllib.request.Request:
        request = urllib.request.Request(self.url, headers={'User-Agent': 'eca-zoo', 'Accept-Encoding': 'identity'})
        if offset:
            request.add_header('Range', f'bytes={offset}-')
            if self.etag is not None:
                request.add_header('If-Range', self.etag)
        credentials = _credentials(urlsplit(self.url).hostname)
        if credentials is not None:
            request.add_unredirected_header('Authorization', credentials)
        return request

    def _copy(self, response: Any, file: IO[bytes], expected: int) -> None:
        """Copy the body; one byte more than ``expected`` is enough to see that it is another file."""
        declared, received = response.headers.get('Content-Length', ''), 0
        while received <= expected:
            try:
                chunk = response.read1(min(_CHUNK, expected + 1 - received))
            except http.client.IncompleteRead:
                raise _Retry('the connection broke off') from None
            except (OSError, http.client.HTTPException) as error:
                raise _connection_error(self.url, error) from None
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            self.progress(len(chunk))
        if declared.isdigit() and received < min(int(declared), expected):
            raise _Retry('the connection broke off')


def _credentials(host: str | None) -> str | None:
    """The ``Authorization`` header for ``host`` from the user's netrc file, or None."""
    try:
        login, _, password = netrc.netrc(os.environ.get('NETRC')).authenticators(host or '') or (None, None, None)
    except (OSError, netrc.NetrcParseError):
        return None
    return f'Basic {base64.b64encode(f"{login}:{password}".encode()).decode()}' if login else None


def _starts_at(headers: Mapping[str, str], offset: int) -> bool:
    return str(headers.get('Content-Range', '')).startswith(f'bytes {offset}-')


def _status_error(url: str, status: int, retry_after: str | None) -> Exception:
    host = urlsplit(url).hostname
    if status in _RETRIED_STATUS:
        what = 'asks for patience' if status == 429 else 'is failing'
        return _Retry(f'{host} {what}: status {status}', _retry_after(retry_after))
    if status in (401, 403):
        return SourceError(f'{host} refuses access: status {status}; set a login for {host} in ~/.netrc')
    if status in (404, 410):
        return SourceError(f'{host} has no such file: status {status}; check the URL in the manifest')
    return SourceError(f'{host} answers with status {status}')


def _retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: a number, or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _connection_error(url: str, error: Exception) -> Exception:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    host = urlsplit(url).hostname
    if urlsplit(url).scheme == 'file':
        text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
        return SourceError(f'{text}; check the path in the manifest')
    if isinstance(reason, socket.gaierror):
        return SourceError(f'unknown host {host} ({reason.strerror}); check the URL, the connection, or use --offline')
    if isinstance(reason, TimeoutError):
        return _Retry(f'{host} stays silent')
    text = getattr(reason, 'strerror', None) or str(reason) or type(reason).__name__
    return _Retry(f'{host}: {text.lower()}')
