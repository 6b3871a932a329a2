"""What the tests of checkpoints share: a small real checkpoint, a home for checkpoints, a hub, and no long waits."""

import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from eca_zoo.models.registry import refresh_pretrained_cfgs
from eca_zoo.resources import packaged_path
from eca_zoo.weights.manifest import Entry, HubSource, Source
from tests.hub_server import HubServer
from tests.weights.helpers import REPO, entry_with


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
    refresh_pretrained_cfgs()


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running hub that the real client talks to."""
    with HubServer().running() as server:
        monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', server.endpoint)
        template = f'{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
        monkeypatch.setattr('huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE', template)
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_DISABLE_XET', True)
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT', 0.5)
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
def hub_entry(hub: HubServer, content: bytes) -> Entry:
    """An entry whose one source is a file on the hub."""
    commit = hub.commit(REPO, {'model.safetensors': content})
    return entry_with(content, Source(hub=HubSource(REPO, commit)))


@pytest.fixture
def url_entry(hub: HubServer, content: bytes) -> Entry:
    """An entry whose one source is a URL."""
    hub.files['model.safetensors'] = content
    return entry_with(content, Source(url=hub.url('model.safetensors')))
