"""Fetching from URLs: mirrors that misbehave, resumption, and files of air-gapped sites."""

import base64
import dataclasses
import email.utils
import hashlib
import os
import socket
from pathlib import Path

import pytest

from eca_zoo.weights.errors import FetchError
from eca_zoo.weights.load import load_verified
from eca_zoo.weights.manifest import Entry, Source
from eca_zoo.weights.sources import download as download_module
from eca_zoo.weights.sources.download import RetryPolicy, download
from eca_zoo.weights.sources.fetch import fetch
from tests.weights.helpers import NAME, QUICK, broken_files, entry_with
from tests.weights.hub_handler import HTML_PAGE
from tests.weights.hub_server import HubServer


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch_error(entry: Entry, policy: RetryPolicy = QUICK) -> str:
    """The one line that a failed fetch says."""
    with pytest.raises(FetchError) as caught:
        fetch(NAME, entry, policy=policy)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def ranges(hub: HubServer) -> list[str | None]:
    """The ranges that were asked for, request by request."""
    return [request.headers.get('range') for request in hub.requests]


def partial_files(home: Path) -> list[Path]:
    return list(home.rglob('*.part'))


def test_checkpoint_comes_from_a_url_and_stays(hub: HubServer, url_entry: Entry, content: bytes, home: Path) -> None:
    path = fetch(NAME, url_entry)
    assert path == home / 'checkpoints' / f'{NAME}-{sha256(content)[:12]}' / 'model.safetensors'
    assert path.read_bytes() == content
    assert fetch(NAME, url_entry) == path
    assert len(load_verified(NAME, url_entry)) == 96
    assert len(hub.requests) == 1


def test_loading_fetches_what_is_not_here(hub: HubServer, url_entry: Entry) -> None:
    assert len(load_verified(NAME, url_entry)) == 96
    assert len(hub.requests) == 1


@pytest.mark.parametrize('kind', ['truncate', 'reset', 'stall'])
def test_interrupted_transfer_is_resumed_where_it_broke_off(
    kind: str, hub: HubServer, url_entry: Entry, content: bytes, home: Path, waits: list[float], silence: None
) -> None:
    hub.fail(kind, times=2)
    assert fetch(NAME, url_entry, policy=QUICK).read_bytes() == content
    first, second, third = ranges(hub)
    assert first is None
    assert second is not None
    assert third is not None
    assert 0 < int(second[6:-1]) < int(third[6:-1]) < len(content)
    assert hub.requests[1].headers['if-range'] == f'"{hashlib.md5(content).hexdigest()}"'
    assert waits == [QUICK.first_delay, 2 * QUICK.first_delay]
    assert partial_files(home) == []


@pytest.mark.parametrize('kind', ['truncate', 'reset', 'stall'])
def test_transfer_that_never_completes_ends_in_one_line_and_is_continued_next_time(
    kind: str, hub: HubServer, url_entry: Entry, content: bytes, home: Path, waits: list[float], silence: None
) -> None:
    hub.fail(kind, times=-1)
    text = fetch_error(url_entry)
    said = {'truncate': 'the connection broke off', 'reset': '127.0.0.1: connection reset by peer'}
    assert f'{hub.url("model.safetensors")}: {said.get(kind, "127.0.0.1 stays silent")} (3 tries, ' in text
    assert f' of {len(content)} bytes received; try again later)' in text
    assert broken_files(home, content) == []
    received = partial_files(home)[0].stat().st_size
    hub.heal()
    hub.requests.clear()
    assert fetch(NAME, url_entry, policy=QUICK).read_bytes() == content
    assert ranges(hub) == [f'bytes={received}-']
    assert partial_files(home) == []


def test_server_that_ignores_ranges_is_read_from_the_start(
    hub: HubServer, url_entry: Entry, content: bytes, waits: list[float]
) -> None:
    hub.fail('truncate', times=1)
    hub.fail('ignore_range', times=1)
    assert fetch(NAME, url_entry, policy=QUICK).read_bytes() == content


def test_file_that_changes_during_an_interruption_is_read_from_the_start(
    hub: HubServer, url_entry: Entry, content: bytes, waits: list[float]
) -> None:
    hub.fail('truncate', times=1, body=bytes(len(content)))
    assert fetch(NAME, url_entry, policy=QUICK).read_bytes() == content
    assert len(hub.requests) == 2  # If-Range made the server send all of the new file


def test_partial_file_of_other_content_is_downloaded_again(
    hub: HubServer, url_entry: Entry, content: bytes, home: Path, waits: list[float]
) -> None:
    hub.fail('truncate', times=-1, body=bytes(len(content)))
    fetch_error(url_entry)
    hub.heal()
    assert fetch(NAME, url_entry, policy=QUICK).read_bytes() == content


def test_partial_file_that_is_too_long_is_downloaded_again(
    hub: HubServer, content: bytes, home: Path, waits: list[float]
) -> None:
    hub.files['model.safetensors'] = content
    path = home / 'model.safetensors'
    home.mkdir()
    part = home / f'.model.safetensors.elsewhere-1-{0:x}.part'
    part.write_bytes(content + b'more')
    os.utime(part, (0, 0))
    download(hub.url('model.safetensors'), path, len(content), sha256(content), QUICK)
    assert path.read_bytes() == content
    assert partial_files(home) == []


def test_partial_file_that_another_machine_may_be_writing_is_left_alone(
    hub: HubServer, content: bytes, home: Path
) -> None:
    hub.files['model.safetensors'] = content
    home.mkdir()
    part = home / f'.model.safetensors.elsewhere-1-{0:x}.part'
    part.write_bytes(content[:1000])
    os.utime(part, (2**32, 2**32))  # never old
    download(hub.url('model.safetensors'), home / 'model.safetensors', len(content), sha256(content), QUICK)
    assert ranges(hub) == [None]
    assert part.read_bytes() == content[:1000]


@pytest.mark.parametrize('status', [408, 429, 500, 502, 503, 504])
def test_failing_server_is_asked_again_with_growing_waits(
    status: int, hub: HubServer, url_entry: Entry, content: bytes, waits: list[float]
) -> None:
    hub.fail('status', times=2, status=status)
    assert fetch(NAME, url_entry, policy=QUICK).read_bytes() == content
    assert waits == [QUICK.first_delay, 2 * QUICK.first_delay]


def test_failing_server_is_given_up_after_the_last_try(
    hub: HubServer, url_entry: Entry, content: bytes, waits: list[float]
) -> None:
    hub.fail('status', times=-1, status=500)
    tries = f'(3 tries, 0 of {len(content)} bytes received; try again later)'
    assert f'127.0.0.1 is failing: status 500 {tries}' in fetch_error(url_entry)


@pytest.mark.parametrize('as_date', [False, True])
def test_retry_after_is_obeyed(
    as_date: bool, hub: HubServer, url_entry: Entry, content: bytes, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_700_000_000.0
    monkeypatch.setattr(download_module.time, 'time', lambda: now)
    value = email.utils.formatdate(now + 30, usegmt=True) if as_date else '30'
    hub.fail('status', times=1, status=429, headers={'Retry-After': value})
    assert fetch(NAME, url_entry, policy=QUICK).read_bytes() == content
    assert waits == [30]


def test_retry_after_that_is_too_long_is_said_at_once(hub: HubServer, url_entry: Entry, waits: list[float]) -> None:
    hub.fail('status', times=-1, status=429, headers={'Retry-After': '3600'})
    said = '127.0.0.1 asks for patience: status 429, and asks to come back in 3600 s'
    assert said in fetch_error(url_entry)
    assert waits == []


@pytest.mark.parametrize('kind', ['flip', 'replace', 'html', 'longer'])
def test_wrong_bytes_are_refused_with_both_hashes_and_removed(
    kind: str, hub: HubServer, url_entry: Entry, content: bytes, home: Path
) -> None:
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    other, longer = bytes(1000), content + b'more'
    delivered = {'flip': bytes(flipped), 'replace': other, 'html': HTML_PAGE, 'longer': content + b'm'}[kind]
    hub.fail(kind, times=-1, body={'replace': other, 'longer': longer}.get(kind, b''))
    more = 'or more ' if kind == 'longer' else ''
    assert fetch_error(url_entry) == (
        f'{NAME} could not be fetched: {hub.url("model.safetensors")}: it delivers other bytes: '
        f'SHA-256 {sha256(delivered)} ({len(delivered)} {more}bytes), expected {sha256(content)} ({len(content)} bytes)'
        '; nothing was kept; tell whoever runs it, or list another source'
    )
    assert [path for path in home.rglob('*') if path.is_file() and path.suffix != '.lock'] == []
    hub.heal()
    assert fetch(NAME, url_entry, policy=QUICK).read_bytes() == content


@pytest.mark.parametrize(
    ('status', 'said'),
    [
        (401, '127.0.0.1 refuses access: status 401; set a login for 127.0.0.1 in ~/.netrc'),
        (403, '127.0.0.1 refuses access: status 403; set a login for 127.0.0.1 in ~/.netrc'),
        (404, '127.0.0.1 has no such file: status 404; check the URL in the manifest'),
        (418, '127.0.0.1 answers with status 418'),
    ],
)
def test_refusal_is_said_without_a_second_try(status: int, said: str, hub: HubServer, url_entry: Entry) -> None:
    hub.fail('status', times=-1, status=status)
    assert said in fetch_error(url_entry)
    assert len(hub.requests) == 1


def test_login_for_a_mirror_comes_from_netrc(
    hub: HubServer, url_entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / 'netrc'
    netrc.write_text('machine 127.0.0.1 login me password secret\n')
    netrc.chmod(0o600)
    monkeypatch.setenv('NETRC', str(netrc))
    fetch(NAME, url_entry)
    assert hub.requests[0].headers['authorization'] == f'Basic {base64.b64encode(b"me:secret").decode()}'


def test_unknown_host_is_named(home: Path, content: bytes) -> None:
    text = fetch_error(entry_with(content, Source(url='https://mirror.invalid/model.safetensors')))
    assert 'https://mirror.invalid/model.safetensors: unknown host mirror.invalid (' in text
    assert '; check the URL, the connection, or use --offline' in text


def test_port_that_nobody_listens_on_is_said(home: Path, content: bytes, waits: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        text = fetch_error(entry_with(content, Source(url=f'http://127.0.0.1:{taken.getsockname()[1]}/model')))
    assert '127.0.0.1: connection refused (3 tries' in text


def test_server_that_never_answers_is_given_up(home: Path, content: bytes, waits: list[float]) -> None:
    with socket.create_server(('127.0.0.1', 0)) as silent:
        entry = entry_with(content, Source(url=f'http://127.0.0.1:{silent.getsockname()[1]}/model'))
        text = fetch_error(entry, dataclasses.replace(QUICK, timeout=0.05))
    assert f'127.0.0.1 stays silent (3 tries, 0 of {len(content)} bytes received; try again later)' in text


def test_offline_asks_no_server_but_reads_files(
    hub: HubServer, url_entry: Entry, content: bytes, tmp_path: Path
) -> None:
    with pytest.raises(FetchError, match='offline; unset HF_HUB_OFFLINE, or leave --offline out, to download it'):
        fetch(NAME, url_entry, offline=True)
    assert hub.requests == []
    mirror = tmp_path / 'model.safetensors'
    mirror.write_bytes(content)
    path = fetch(NAME, entry_with(content, Source(url=mirror.as_uri())), offline=True)
    mirror.unlink()
    assert path.read_bytes() == content


def test_missing_file_of_an_air_gapped_site_is_named(home: Path, content: bytes, tmp_path: Path) -> None:
    url = (tmp_path / 'absent.safetensors').as_uri()
    said = f'{url}: No such file or directory; check the path in the manifest'
    assert said in fetch_error(entry_with(content, Source(url=url)))


def test_stored_file_that_changed_is_replaced(hub: HubServer, url_entry: Entry, content: bytes) -> None:
    path = fetch(NAME, url_entry)
    path.write_bytes(content[:-1])
    assert fetch(NAME, url_entry) == path
    assert path.read_bytes() == content


def test_bad_copy_gives_way_to_a_good_one_elsewhere(
    hub: HubServer, url_entry: Entry, content: bytes, home: Path
) -> None:
    stored = fetch(NAME, url_entry)
    stored.write_bytes(content[:-1])
    (home / 'mine.safetensors').write_bytes(content)
    entry = entry_with(content, Source(file='mine.safetensors'))
    assert fetch(NAME, entry) == home / 'mine.safetensors'
    assert not stored.exists()
