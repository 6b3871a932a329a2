"""What the tests of checkpoints share: a small real checkpoint, a home for checkpoints, a hub, and no long waits."""

import selectors
import socket
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eca_zoo.models.registry import refresh_pretrained_cfgs
from eca_zoo.resources import packaged_path
from eca_zoo.weights.manifest import Entry, HubSource, Source
from tests.weights.helpers import REPO, entry_with
from tests.weights.hub_server import HubServer


@pytest.fixture(scope='session')
def content() -> bytes:
    """The bytes of a real checkpoint of 1.5 MB."""
    return packaged_path('checkpoints/test_eca_resnet.digits.safetensors').read_bytes()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty ECA_ZOO_HOME, which timm's registry forgets afterwards, and an empty cache of the hub's client."""
    folder = tmp_path / 'home'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ECA_ZOO_HOME', str(folder))
        patch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
        yield folder
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv('ECA_ZOO_MANIFEST', raising=False)  # a test may have set it
        refresh_pretrained_cfgs()


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running hub that the real client talks to."""
    with HubServer().running() as server:
        monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', server.endpoint)
        template = f'{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
        monkeypatch.setattr('huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE', template)
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_DISABLE_XET', True)
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT', 3600)
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT', 3600)
        monkeypatch.setattr('huggingface_hub.constants.HF_TOKEN_PATH', str(home / 'no_token'))
        monkeypatch.delenv('HF_TOKEN', raising=False)
        yield server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that anybody wanted to wait before trying again; nobody waits."""
    waited: list[float] = []
    clock = types.SimpleNamespace(**{**vars(time), 'sleep': waited.append})
    for module in (
        'huggingface_hub.utils._http', 'huggingface_hub.file_download', 'eca_zoo.weights.sources.download',
        'eca_zoo.weights.sources.hub',
    ):  # fmt: skip
        monkeypatch.setattr(f'{module}.time', clock)
    return waited


@pytest.fixture
def silence(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose time is up as soon as it has read all that a stalled answer sent, and never for another reason."""

    def wait(connection: socket.socket) -> None:
        if connection.family != socket.AF_INET or connection.getpeername()[1] != hub.port:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            while not selector.select(0.001):
                # What was sent before the hub stalled has arrived.
                if connection.getsockname() in hub.stalled and not selector.select(0):
                    hub.stalled.remove(connection.getsockname())
                    raise TimeoutError('timed out')

    def waiting(receive: Callable[..., Any]) -> Callable[..., Any]:
        def received(connection: socket.socket, *arguments: Any) -> Any:
            wait(connection)
            return receive(connection, *arguments)

        return received

    for name in ('recv', 'recv_into'):
        monkeypatch.setattr(socket.socket, name, waiting(getattr(socket.socket, name)))


@pytest.fixture
def hub_entry(hub: HubServer, content: bytes) -> Entry:
    """An entry whose one source is a file on the hub."""
    commit = hub.commit(REPO, {'model.safetensors': content})
    return entry_with(content, Source(hub=HubSource(REPO, commit)))


@pytest.fixture
def url_entry(hub: HubServer, content: bytes) -> Entry:
    """An entry whose one source is a URL."""
    hub.files['model.safetensors'] = content
    return entry_with(content, Source(url=hub.url('model.safetensors')))
