"""Publishing to a hub on the loopback interface with the real client, and what a fresh machine gets from there."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from eca_zoo.cli import main
from eca_zoo.errors import InputError, RunError
from eca_zoo.weights.convert.publish import publish, write_hub_folder
from eca_zoo.weights.errors import ConvertNeededError
from eca_zoo.weights.manifest import Entry, Manifest, dump_manifest, load_manifest, parse_manifest, read_manifest
from eca_zoo.weights.sources.fetch import fetch
from tests.weights.hub_server import HubServer

REPO = 'eca-zoo/test_eca_resnet.digits'
NAME = 'test_eca_resnet.digits'


@pytest.fixture
def writer(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The hub, with a token that may write to it."""
    hub.token = 'hf_writer'
    monkeypatch.setenv('HF_TOKEN', hub.token)
    return hub


@pytest.fixture
def entry() -> Entry:
    return load_manifest().models[NAME]


def run_python(script: str, hub: HubServer, home: Path, **variables: str) -> str:
    """What a new process with an empty cache prints."""
    environment = {
        **os.environ,
        'HF_ENDPOINT': hub.endpoint,
        'HF_HOME': str(home / 'hf'),
        'HF_HUB_DISABLE_XET': '1',
        'HF_HUB_DOWNLOAD_TIMEOUT': '3600',
        'HF_HUB_ETAG_TIMEOUT': '3600',
        'ECA_ZOO_HOME': str(home / 'zoo'),
        **variables,
    }
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_published_checkpoint_reaches_a_fresh_machine_with_and_without_the_manifest(
    writer: HubServer, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(['publish', NAME, '--repo', REPO]) == 0
    output = capsys.readouterr().out
    commit, tree = writer.repos[REPO][-1]
    sha256 = hashlib.sha256(content).hexdigest()
    assert output.splitlines()[0] == f'# {NAME}: {REPO}, commit {commit}, {len(content)} bytes, SHA-256 {sha256}'
    assert sorted(tree) == ['README.md', 'config.json', 'model.safetensors']
    assert tree['model.safetensors'].content == content

    printed = yaml.safe_load(output)
    assert printed[NAME]['checkpoint']['sources'][0] == {'hub': {'repo': REPO, 'revision': commit}}
    del printed[NAME]['checkpoint']['sources'][1]  # the package's own copy, which would be found first
    fresh = tmp_path / 'fresh'
    (fresh / 'zoo').mkdir(parents=True)
    text = yaml.safe_dump({'version': 1, 'models': {'test_eca_resnet.published': printed[NAME]}})
    parse_manifest(text, 'printed')
    (fresh / 'zoo' / 'weights_manifest.yaml').write_text(text)
    script = (
        'import eca_zoo, timm, torch\n'
        'image = torch.rand(2, 3, 32, 32)\n'
        f"names = ['test_eca_resnet.published', 'hf-hub:{REPO}', 'test_eca_resnet.digits']\n"
        'logits = [timm.create_model(name, pretrained=True).eval()(image) for name in names]\n'
        'print(torch.equal(logits[0], logits[1]), torch.equal(logits[0], logits[2]), logits[0].shape)\n'
    )
    assert run_python(script, writer, fresh) == 'True True torch.Size([2, 10])\n'
    assert [path.name for path in (fresh / 'hf').rglob('model.safetensors')] == ['model.safetensors']


def test_a_mirror_reaches_a_fresh_machine_by_its_manifest_alone(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / 'mirror'
    command = ['publish', 'all', '--folder', str(folder), '--mirror-url', hub.url('mirror/')]
    assert main(command) == main(command) == 0
    output = capsys.readouterr().out
    assert f'{folder}/weights_manifest.yaml: the manifest of this mirror; ECA_ZOO_MANIFEST names it' in output
    assert "eca_resnet50.k3557_in1k  skipped  download the authors' file eca_resnet50_k3557.pth.tar from" in output
    mirror = read_manifest(folder / 'weights_manifest.yaml')
    assert list(mirror.models) == [NAME, 'test_maskrcnn.digits']
    # The weights alone are served, and the package's own copy would be found first.
    checkpoint = mirror.models[NAME].checkpoint
    assert [str(source) for source in checkpoint.sources] == [
        hub.url(f'mirror/{NAME}/model.safetensors'), 'package:checkpoints/test_eca_resnet.digits.safetensors'
    ]  # fmt: skip
    hub.files[f'mirror/{NAME}/model.safetensors'] = (folder / NAME / 'model.safetensors').read_bytes()
    checkpoint = msgspec.structs.replace(checkpoint, sources=checkpoint.sources[:1])
    entry = msgspec.structs.replace(mirror.models[NAME], checkpoint=checkpoint)
    site = tmp_path / 'site.yaml'
    site.write_text(dump_manifest(Manifest(models={'test_eca_resnet.mirrored': entry})))
    script = "import eca_zoo, timm\nprint(timm.create_model('test_eca_resnet.mirrored', pretrained=True).num_classes)\n"
    assert run_python(script, hub, tmp_path / 'fresh', ECA_ZOO_MANIFEST=str(site)) == '10\n'


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--repo', 'a/b', '--mirror-url', 'https://x'], '--mirror-url is where a --folder is served; name the folder'),
        (['--folder', 'x', '--mirror-url', 'mirror'], '--mirror-url: url must start with https://, http:// or file://'),
    ],
)
def test_a_mirror_that_cannot_be_is_refused_before_anything_is_written(
    more: list[str], said: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(['publish', NAME, *more]) == 2
    assert capsys.readouterr().err.startswith(f'eca-zoo publish: error: {said}')
    assert list(tmp_path.iterdir()) == []


def test_the_card_and_all_hints_name_no_package_index_but_the_url_that_publish_was_given(
    home: Path, tmp_path: Path
) -> None:
    url = 'git+https://git.invalid/eca-zoo'
    assert main(['publish', NAME, '--folder', str(tmp_path / 'a'), '--package-url', url]) == 0
    assert main(['publish', NAME, '--folder', str(tmp_path / 'b')]) == 0
    cards = [(tmp_path / name / 'README.md').read_text() for name in 'ab']
    assert f'import eca_zoo  # pip install {url}\n' in cards[0]
    assert 'import eca_zoo  # ECA Zoo; in a clone of its repository: pip install .\n' in cards[1]
    root = Path(__file__).parents[3]
    pages = [*(root / 'eca_zoo').rglob('*.py'), *root.glob('*.md'), *(root / 'docs').rglob('*.md')]
    texts = [*cards, *(page.read_text(encoding='utf-8') for page in pages)]
    assert [text for text in texts if re.search(r'pip install\s+(-\S+\s+)*[\'"]?eca[-_]zoo', text)] == []


def test_model_card_has_figures_usage_licence_citation_and_hashes(home: Path, tmp_path: Path, content: bytes) -> None:
    results = tmp_path / 'leaderboard.csv'
    results.write_text('model,dataset,num_images,top1,top5\ntest_eca_resnet,digits,360,98.06,100.0\n')
    assert main(['publish', NAME, '--repo', REPO, '--folder', str(tmp_path / 'out'), '--results', str(results)]) == 0
    card = (tmp_path / 'out' / 'README.md').read_text()
    metadata = yaml.safe_load(card.split('---\n')[1])
    assert metadata['license'] == 'mit'
    assert metadata['library_name'] == 'timm'
    for part in (
        '| Top-1 |  | 98.06 % |',
        '| Images |  | 360 of digits |',
        '| Parameters |  | 373,674 |',
        f"timm.create_model('{NAME}', pretrained=True)",
        f"timm.create_model('hf-hub:{REPO}', pretrained=True)",
        hashlib.sha256(content).hexdigest(),
    ):
        assert part in card
    assert (tmp_path / 'out' / 'model.safetensors').read_bytes() == content


def test_published_figures_of_the_authors_stand_beside_the_measured_ones(home: Path, tmp_path: Path) -> None:
    from eca_zoo.weights.convert.hub_folder import model_card

    manifest = load_manifest()
    entry = manifest.models['eca_resnet50.k3557_in1k']
    digits = manifest.models[NAME]
    fields = {key: getattr(entry, key) for key in entry.__struct_fields__}
    card = model_card('eca_resnet50.k3557_in1k', Entry(**{**fields, 'checkpoint': digits.checkpoint}), None, {})
    assert '| Top-1 | 77.42 % |  |' in card
    assert 'Two generations are around under this file name' in card
    assert '@InProceedings{wang2020eca,' in card
    assert '| eca_resnet50_k3557.pth.tar (before conversion) |' in card
    assert 'hf-hub:' not in card
    assert 'The weights: mit, as in the repository of the authors (https://github.com/BangguWu/ECANet).' in card
    assert 'trained on ImageNet, whose images are under terms of access of their own' in card


def test_private_repository_is_made_private_and_opens_with_the_token_alone(
    writer: HubServer, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = publish(NAME, entry, REPO, private=True)
    assert REPO in writer.private
    assert result.commit == writer.repos[REPO][-1][0]


def test_publishing_twice_leaves_one_copy_and_names_the_same_bytes(writer: HubServer, entry: Entry) -> None:
    first, second = publish(NAME, entry, REPO), publish(NAME, entry, REPO)
    assert (first.size, first.sha256) == (second.size, second.sha256)
    assert writer.count('PUT', '/lfs/') == 1


def test_bytes_that_change_on_the_way_up_are_noticed(writer: HubServer, entry: Entry) -> None:
    writer.fail('flip', method='PUT', path='/lfs/')
    with pytest.raises(RunError) as caught:
        publish(NAME, entry, REPO)
    text = str(caught.value)
    assert text.startswith(f'{NAME} was not published: {REPO}@{writer.repos[REPO][-1][0]} holds SHA-256 ')
    assert text.endswith(f'expected {entry.checkpoint.sha256} ({entry.checkpoint.size} bytes); publish again')


def test_upload_is_retried_after_a_server_error(writer: HubServer, entry: Entry, waits: list[float]) -> None:
    writer.fail('status', times=1, method='PUT', path='/lfs/', status=503)
    publish(NAME, entry, REPO)
    assert writer.count('PUT', '/lfs/') == 2


def test_missing_or_wrong_token_says_what_to_set(hub: HubServer, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = 'hf_writer'
    said = 'status 401: the hub knows no such login; set HF_TOKEN to a token with write access (hf auth login)'
    with pytest.raises(RunError) as caught:
        publish(NAME, entry, REPO)
    assert str(caught.value) == f'{NAME} could not be published: {REPO}: {said}'
    monkeypatch.setenv('HF_TOKEN', hub.token)
    hub.fail('status', times=-1, method='POST', path='/api/repos/create', status=403)
    with pytest.raises(RunError, match='status 403: HF_TOKEN may not write to eca-zoo; set one that may'):
        publish(NAME, entry, REPO)
    assert '\n' not in str(caught.value)


def test_unreachable_hub_is_named(hub: HubServer, entry: Entry, monkeypatch, waits: list[float]) -> None:
    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', 'http://hub.invalid')
    with pytest.raises(RunError, match=r'cannot reach hub.invalid \(.*\); check the connection and HF_ENDPOINT'):
        publish(NAME, entry, REPO)


def test_name_that_is_no_repository_is_refused(home: Path, entry: Entry) -> None:
    with pytest.raises(InputError, match=r"^--repo: repo must be ORG/NAME, not 'mine'$"):
        publish(NAME, entry, 'mine')


def test_checkpoint_that_is_not_here_cannot_be_published(home: Path) -> None:
    with pytest.raises(ConvertNeededError):
        publish('eca_resnet18.k3577_in1k', load_manifest().models['eca_resnet18.k3577_in1k'], REPO)


def test_folder_with_another_checkpoint_is_not_overwritten(home: Path, entry: Entry, tmp_path: Path) -> None:
    (tmp_path / 'model.safetensors').write_bytes(b'precious')
    said = f'^{tmp_path}: it holds another checkpoint already; choose another --folder, or remove it$'
    with pytest.raises(InputError, match=said):
        write_hub_folder(NAME, entry, tmp_path, None, {})
    assert fetch(NAME, entry).exists()
    assert (tmp_path / 'model.safetensors').read_bytes() == b'precious'
