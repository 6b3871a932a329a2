"""The authors' files: gdown itself against a server on the loopback interface, trust on first use, and hashes."""

import hashlib
from pathlib import Path

import pytest
import torch

from eca_zoo.errors import InputError
from eca_zoo.weights.convert.from_authors import convert_from_authors
from eca_zoo.weights.errors import CheckpointError, FetchError, HashMismatchError
from eca_zoo.weights.local_manifest import local_manifest
from eca_zoo.weights.manifest import load_manifest
from tests.reference_checkpoints import checkpoint
from tests.weights.hub_server import HubServer

pytest.importorskip('gdown')
NAME = 'eca_mobilenetv2.k13_in1k'
FILE = 'eca_mobilenetv2_k13.pth.tar'


@pytest.fixture
def original(hub: HubServer, tmp_path: Path) -> bytes:
    """A stand-in for the authors' file, which the server offers under the name that gdown asks for."""
    torch.save(checkpoint('eca_mobilenetv2'), tmp_path / FILE)
    hub.files['drive/uc'] = (tmp_path / FILE).read_bytes()
    return hub.files['drive/uc']


def fetch(hub: HubServer, answer: bool = True) -> tuple[object, list[str]]:
    questions: list[str] = []

    def confirm(question: str) -> bool:
        questions.append(question)
        return answer

    drive = hub.url('drive')
    return convert_from_authors(NAME, load_manifest().models[NAME], confirm, drive=drive), questions


def test_first_copy_is_trusted_after_a_question_and_later_ones_must_equal_it(hub: HubServer, original: bytes) -> None:
    result, questions = fetch(hub)
    assert questions == [
        f'No SHA-256 of {FILE} is known: this first copy from '
        'https://drive.google.com/file/d/1FxzeXPg1SJQZzVVH4HRjMeq_SVMfidUm is trusted as it is, and later copies must '
        'equal it. Download it?'
    ]
    recorded = local_manifest().models[NAME]
    assert recorded.authors_file.sha256 == hashlib.sha256(original).hexdigest() == result.source_sha256
    assert recorded.checkpoint.sha256 == result.sha256
    again, questions = fetch(hub)
    assert questions == []
    assert again.sha256 == result.sha256
    other = original[:-1] + b'x'
    hub.files['drive/uc'] = other
    with pytest.raises(HashMismatchError) as caught:
        fetch(hub)
    assert (
        f'SHA-256 {hashlib.sha256(other).hexdigest()} ({len(other)} bytes), expected {recorded.authors_file.sha256}; '
        'nothing was converted'
    ) in str(caught.value)
    assert local_manifest().models[NAME] == recorded


def test_without_agreement_nothing_is_downloaded(hub: HubServer, original: bytes) -> None:
    with pytest.raises(InputError, match='nobody agreed to trust the first copy; answer y, or give --yes'):
        fetch(hub, answer=False)
    assert hub.requests == []


def test_page_that_asks_for_a_click_is_not_converted(hub: HubServer, original: bytes, home: Path) -> None:
    hub.files['drive/uc'] = b'<!DOCTYPE html><html>Quota exceeded</html>'
    with pytest.raises((FetchError, CheckpointError)) as caught:
        fetch(hub)
    text = str(caught.value)
    assert 'did not deliver' in text or 'this is a web page, not a checkpoint' in text
    assert [path for path in home.rglob('*') if path.is_file() and path.suffix != '.lock'] == []


def test_refusal_of_the_drive_says_how_else_to_get_the_file(hub: HubServer) -> None:
    with pytest.raises(FetchError) as caught:
        fetch(hub)
    link = 'https://drive.google.com/file/d/1FxzeXPg1SJQZzVVH4HRjMeq_SVMfidUm'
    assert str(caught.value) == (
        f'{NAME} could not be fetched: Google Drive did not deliver {FILE} (too many downloads, or no connection); '
        f'open {link} in a browser, save the file and run: eca-zoo convert {FILE}'
    )


def test_checkpoint_without_a_file_of_its_authors_says_so(home: Path) -> None:
    name = 'test_eca_resnet.digits'
    with pytest.raises(InputError, match=f'^{name}: the manifest knows no file of its authors on Google Drive$'):
        convert_from_authors(name, load_manifest().models[name], lambda question: True)
