"""Fetching through the real client of the Hugging Face Hub from a hub on the loopback interface that misbehaves."""

import hashlib
from pathlib import Path

import pytest

from eca_zoo.weights.errors import FetchError, HashMismatchError
from eca_zoo.weights.load import load_verified
from eca_zoo.weights.manifest import Entry, HubSource, Source
from eca_zoo.weights.sources.fetch import fetch
from tests.weights.helpers import NAME, QUICK, REPO, broken_files, entry_with
from tests.weights.hub_handler import HTML_PAGE
from tests.weights.hub_server import HubServer

TENSORS = 96


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch_error(entry: Entry) -> str:
    """The one line that a failed fetch says."""
    with pytest.raises(FetchError) as caught:
        fetch(NAME, entry, policy=QUICK)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_checkpoint_comes_from_the_hub_and_stays_in_its_cache(hub: HubServer, hub_entry: Entry, home: Path) -> None:
    path = fetch(NAME, hub_entry)
    assert path.is_relative_to(home.parent / 'hub')
    requests = len(hub.requests)
    assert fetch(NAME, hub_entry) == path
    assert len(load_verified(NAME, hub_entry)) == TENSORS
    assert len(hub.requests) == requests


def test_a_file_of_the_users_that_was_changed_is_put_aside_and_not_removed(
    hub: HubServer, hub_entry: Entry, content: bytes, home: Path
) -> None:
    own = home / 'mine' / 'model.safetensors'
    own.parent.mkdir(parents=True)
    own.write_bytes(b'trained since')
    assert hub_entry.checkpoint is not None
    entry = entry_with(content, Source(file='mine/model.safetensors'), *hub_entry.checkpoint.sources)
    fetch(NAME, entry, policy=QUICK)
    aside = own.with_name(f'model.safetensors.{sha256(b"trained since")[:12]}')
    assert [path.read_bytes() for path in own.parent.iterdir() if path == aside] == [b'trained since']
    assert len(load_verified(NAME, entry)) == TENSORS


@pytest.mark.parametrize('kind', ['truncate', 'stall'])
def test_interrupted_transfer_is_resumed(
    kind: str, hub: HubServer, hub_entry: Entry, content: bytes, home: Path, waits: list[float], silence: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr('huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE', 1 << 16)  # the client keeps whole chunks
    hub.fail(kind, times=1, path='/cdn/')
    path = fetch(NAME, hub_entry, policy=QUICK)
    assert path.read_bytes() == content
    transfers = [request for request in hub.requests if request.method == 'GET' and '/cdn/' in request.path]
    assert len(transfers) == 2
    assert transfers[1].headers['range'].startswith('bytes=')
    assert broken_files(home.parent, content) == []


def test_connection_that_is_reset_is_tried_again(
    hub: HubServer, hub_entry: Entry, content: bytes, home: Path, waits: list[float]
) -> None:
    hub.fail('reset', times=2, path='/cdn/')
    assert fetch(NAME, hub_entry, policy=QUICK).read_bytes() == content
    assert hub.count('GET', '/cdn/') == 3
    assert broken_files(home.parent, content) == []


@pytest.mark.parametrize('kind', ['truncate', 'reset', 'stall'])
def test_transfer_that_never_completes_ends_in_one_line_and_leaves_nothing(
    kind: str, hub: HubServer, hub_entry: Entry, content: bytes, home: Path, waits: list[float], silence: None
) -> None:
    hub.fail(kind, times=-1, path='/cdn/')
    text = fetch_error(hub_entry)
    assert f'{NAME} could not be fetched: hub:{REPO}@' in text
    assert 'check the connection and HF_ENDPOINT, or use --offline' in text
    assert broken_files(home.parent, content) == []
    hub.heal()
    assert fetch(NAME, hub_entry, policy=QUICK).read_bytes() == content


def test_server_errors_are_retried_with_growing_waits(
    hub: HubServer, hub_entry: Entry, content: bytes, waits: list[float]
) -> None:
    hub.fail('status', times=2, path='/cdn/', status=503)
    assert fetch(NAME, hub_entry, policy=QUICK).read_bytes() == content
    assert waits == [QUICK.first_delay, 2 * QUICK.first_delay]


def test_server_errors_without_end_say_so(hub: HubServer, hub_entry: Entry, waits: list[float]) -> None:
    hub.fail('status', times=-1, path='/cdn/', status=500)
    assert 'status 500: 127.0.0.1 is failing; try again later' in fetch_error(hub_entry)
    assert hub.count('GET', '/cdn/') == QUICK.attempts


def test_retry_after_is_obeyed(hub: HubServer, hub_entry: Entry, content: bytes, waits: list[float]) -> None:
    hub.fail('status', times=1, path='/cdn/', status=429, headers={'Retry-After': '7'})
    assert fetch(NAME, hub_entry, policy=QUICK).read_bytes() == content
    assert waits == [8.0]  # the client adds a second against rounding


@pytest.mark.parametrize('kind', ['flip', 'replace', 'html'])
def test_wrong_bytes_are_downloaded_once_more_then_refused_with_both_hashes_and_removed(
    kind: str, hub: HubServer, hub_entry: Entry, content: bytes, home: Path, waits: list[float]
) -> None:
    other = bytes(len(content))
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    delivered = {'flip': bytes(flipped), 'replace': other, 'html': HTML_PAGE}[kind]
    hub.fail(kind, times=-1, path='/cdn/', body=other if kind == 'replace' else b'')
    text = fetch_error(hub_entry)
    if kind == 'html':
        assert f'it delivers {len(HTML_PAGE)} bytes instead of {len(content)} (a login page?); try again' in text
    else:
        assert f'it delivers other bytes: SHA-256 {sha256(delivered)} ({len(delivered)} bytes)' in text
        assert f'expected {sha256(content)} ({len(content)} bytes)' in text
        assert hub.count('GET', '/cdn/') == 2
    assert broken_files(home.parent, content) == []
    assert list((home.parent / 'hub').rglob('*.incomplete')) == []
    hub.heal()
    assert fetch(NAME, hub_entry, policy=QUICK).read_bytes() == content


def test_file_that_changed_in_the_cache_is_noticed_at_the_next_load_and_repaired_by_fetch(
    hub: HubServer, hub_entry: Entry, content: bytes
) -> None:
    path = fetch(NAME, hub_entry)
    changed = bytearray(content)
    changed[-1] ^= 1
    path.write_bytes(changed)
    with pytest.raises(HashMismatchError) as caught:
        load_verified(NAME, hub_entry)
    assert str(caught.value) == (
        f'{path}: these are not the weights of {NAME}: SHA-256 {sha256(changed)} ({len(content)} bytes), expected '
        f'{sha256(content)} ({len(content)} bytes); nothing was loaded; to replace the file run: eca-zoo fetch {NAME}'
    )
    assert fetch(NAME, hub_entry).read_bytes() == content
    assert len(load_verified(NAME, hub_entry)) == TENSORS


@pytest.mark.parametrize(
    ('status', 'said'),
    [
        (401, 'status 401: no such repository, or a private one; set HF_TOKEN (hf auth login) if it is yours'),
        (403, 'status 403: HF_TOKEN has no access to this repository; set one that has (hf auth login)'),
    ],
)
def test_refused_access_says_what_to_set(
    status: int, said: str, hub: HubServer, hub_entry: Entry, waits: list[float]
) -> None:
    hub.fail('status', times=-1, method='HEAD', path='/resolve/', status=status)
    assert said in fetch_error(hub_entry)


def test_gated_repository_says_where_to_ask(hub: HubServer, hub_entry: Entry, waits: list[float]) -> None:
    headers = {'X-Error-Code': 'GatedRepo'}
    hub.fail('status', times=-1, method='HEAD', path='/resolve/', status=403, headers=headers)
    said = f'status 403: access is granted on request; ask at {hub.endpoint}/{REPO} and set HF_TOKEN'
    assert said in fetch_error(hub_entry)


def test_private_repository_opens_with_a_token(
    hub: HubServer, hub_entry: Entry, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.private.add(REPO)
    hub.token = 'hf_secret'
    assert 'status 401' in fetch_error(hub_entry)
    monkeypatch.setenv('HF_TOKEN', hub.token)
    assert fetch(NAME, hub_entry).read_bytes() == content
    sent = {request.headers.get('authorization') for request in hub.requests if '/cdn/' in request.path}
    assert sent == {None}  # the token stays with the hub


@pytest.mark.parametrize(
    ('repo', 'revision', 'file', 'said'),
    [
        ('org/nothing', 'a' * 40, 'model.safetensors', 'has no such repository; correct repo in the manifest'),
        (REPO, 'a' * 40, 'model.safetensors', f'the repository has no commit {"a" * 40}; correct revision'),
        (REPO, None, 'other.safetensors', 'this commit has no file other.safetensors; correct file in the manifest'),
    ],
)
def test_missing_repository_commit_or_file_is_named(
    repo: str, revision: str | None, file: str, said: str, hub: HubServer, content: bytes, waits: list[float]
) -> None:
    commit = hub.commit(REPO, {'model.safetensors': content})
    entry = entry_with(content, Source(hub=HubSource(repo, revision or commit, file)))
    text = fetch_error(entry)
    assert 'status 404' in text
    assert said in text


def test_unreachable_hub_says_which_and_what_to_set(
    hub: HubServer, hub_entry: Entry, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    monkeypatch.setattr(
        'huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE',
        'http://hub.invalid/{repo_id}/resolve/{revision}/{filename}',
    )
    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', 'http://hub.invalid')
    text = fetch_error(hub_entry)
    assert 'cannot reach hub.invalid (' in text
    assert '; check the connection and HF_ENDPOINT, or use --offline' in text


def test_server_that_is_no_hub_is_told_from_one_that_is_down(
    hub: HubServer, hub_entry: Entry, waits: list[float]
) -> None:
    hub.fail('status', times=-1, method='HEAD', status=200)
    assert f'{hub.endpoint} does not answer as a hub does (a login page?); check HF_ENDPOINT' in fetch_error(hub_entry)


def test_offline_uses_what_is_in_the_cache_and_asks_nobody(hub: HubServer, hub_entry: Entry, content: bytes) -> None:
    with pytest.raises(FetchError, match='not in the cache, and offline; unset HF_HUB_OFFLINE, or leave --offline out'):
        fetch(NAME, hub_entry, offline=True)
    assert hub.requests == []
    path = fetch(NAME, hub_entry)
    hub.requests.clear()
    assert fetch(NAME, hub_entry, offline=True) == path
    path.write_bytes(content[:-1])
    with pytest.raises(FetchError, match='is damaged, and offline'):
        fetch(NAME, hub_entry, offline=True)
    assert hub.requests == []


def test_environment_variable_for_offline_is_obeyed(
    hub: HubServer, hub_entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(FetchError, match='offline; unset HF_HUB_OFFLINE'):
        fetch(NAME, hub_entry)
    assert hub.requests == []


def test_sources_are_tried_in_order_and_each_answer_is_listed(
    hub: HubServer, content: bytes, waits: list[float]
) -> None:
    commit = hub.commit(REPO, {'model.safetensors': b'other'})
    hub.files['mirror'] = content[:-1]
    sources = (
        Source(hub=HubSource(REPO, commit)),
        Source(url=hub.url('absent')),
        Source(url=hub.url('mirror')),
        Source(package='checkpoints/absent.safetensors'),
        Source(file='checkpoints/absent.safetensors'),
    )
    remedy = 'nothing was kept; tell whoever runs it, or list another source'
    expected = f'expected {sha256(content)} ({len(content)} bytes); {remedy}'
    assert fetch_error(entry_with(content, *sources)) == (
        f'{NAME} could not be fetched: '
        f'hub:{REPO}@{commit[:12]}/model.safetensors: it delivers other bytes: SHA-256 {sha256(b"other")} (5 bytes), '
        f'{expected}; '
        f'{hub.url("absent")}: 127.0.0.1 has no such file: status 404; check the URL in the manifest; '
        f'{hub.url("mirror")}: it delivers other bytes: SHA-256 {sha256(content[:-1])} ({len(content) - 1} bytes), '
        f'{expected}; '
        'package:checkpoints/absent.safetensors: it is missing; reinstall eca-zoo; '
        'file:checkpoints/absent.safetensors: it is missing; convert it again: eca-zoo convert FILE'
    )
    hub.files['second'] = content
    path = fetch(NAME, entry_with(content, *sources, Source(url=hub.url('second'))), policy=QUICK)
    assert path.read_bytes() == content
