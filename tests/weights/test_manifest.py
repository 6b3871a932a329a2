"""The manifest's reader: what is wrong is refused with file and key, and two manifests that disagree are settled."""

import csv
import logging
import re
from pathlib import Path

import msgspec
import pytest
import timm
import yaml

from eca_zoo.errors import InputError
from eca_zoo.resources import packaged_path
from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
from eca_zoo.weights.local_manifest import record_entry
from eca_zoo.weights.manifest import (
    Checkpoint,
    Manifest,
    ManifestError,
    Source,
    dump_manifest,
    load_manifest,
    packaged_manifest,
    parse_manifest,
    read_manifest,
    usable_manifest,
)
from eca_zoo.weights.reported import Reported, ReportedAp

NAME = 'eca_resnet50.k3557_in1k'
SHA256 = 'a' * 64
ENTRY = {
    'num_classes': 1000,
    'dataset': 'imagenet-1k',
    'transform': {
        'input_size': [3, 224, 224], 'crop_pct': 0.875, 'interpolation': 'bilinear',
        'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5],
    },
    'license': 'mit',
    'kernel_sizes': [3, 5, 5, 7],
    'original': {'file': 'a.pth.tar', 'sha256': SHA256},
    'checkpoint': {'size': 10, 'sha256': SHA256, 'sources': [{'hub': {'repo': 'a/b', 'revision': 'a' * 40}}]},
}  # fmt: skip


def text_with(path: str, value: object) -> str:
    """A manifest whose entry has ``value`` at the dotted ``path``."""
    entry = yaml.safe_load(yaml.safe_dump(ENTRY))
    target, keys = entry, path.split('.')
    for key in keys[:-1]:
        target = target[int(key) if key.isdigit() else key]
    last = int(keys[-1]) if keys[-1].isdigit() else keys[-1]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return yaml.safe_dump({'version': 1, 'models': {NAME: entry}})


def refusal(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, 'm.yaml')
    assert '\n' not in str(caught.value)
    assert str(caught.value).startswith('m.yaml: ')
    return str(caught.value).removeprefix('m.yaml: ')


def test_packaged_manifest_has_the_six_of_each_kind_and_no_invented_hash() -> None:
    manifest = packaged_manifest()
    known = [name for name, entry in manifest.models.items() if entry.checkpoint is not None]
    assert known == ['test_eca_resnet.digits', 'test_maskrcnn.digits']
    published = [entry for entry in manifest.models.values() if entry.authors_file is not None]
    assert [entry.is_detector for entry in published] == [False] * 6 + [True] * 6
    assert all(entry.authors_file.sha256 is None for entry in published)
    for name, entry in manifest.models.items():
        if entry.is_detector and entry.reported is not None:
            assert (entry.reported.mask is not None) == name.startswith('maskrcnn_')


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'transform': None}, 'a classifier has the key transform, and a detector resize'),
        ({'reported': Reported(source='s', top1=1.0, top5=2.0), 'categories': {1: 'a'}}, 'categories has 1 names'),
    ],
)
def test_an_entry_is_of_one_kind(changes, said) -> None:
    entry = packaged_manifest().models[NAME]
    with pytest.raises(ValueError, match=said):
        msgspec.structs.replace(entry, **changes)


def test_reported_figures_are_of_one_task_kind() -> None:
    for figures in ({}, {'top1': 1.0}, {'top1': 1.0, 'top5': 2.0, 'box': ReportedAp(1, 2, 3, 4, 5, 6)}):
        with pytest.raises(ValueError, match='top1 and top5 of a classifier, or box of a detector'):
            Reported(source='s', **figures)
    with pytest.raises(ValueError, match='ap50 is a percentage, not 101'):
        ReportedAp(1, 101, 3, 4, 5, 6)


def test_manifest_survives_writing_and_reading() -> None:
    manifest = packaged_manifest()
    assert parse_manifest(dump_manifest(manifest), 'm.yaml') == manifest


@pytest.mark.parametrize(
    ('path', 'value', 'said'),
    [
        (
            'checksum',
            1,
            f'models.{NAME}.checksum: unknown key; there are num_classes, dataset, license, transform, resize, '
            'kernel_sizes, other_kernel_sizes, categories, description, paper, notes, reported, original, checkpoint',
        ),
        (
            'checkpoint.sha1',
            1,
            f'models.{NAME}.checkpoint.sha1: unknown key; the nearest is sha256; there are size, sha256, sources',
        ),
        (
            'original.sha255',
            SHA256,
            f'models.{NAME}.original.sha255: unknown key; the nearest is sha256; there are file, google_drive_id, '
            'baidu_share, baidu_code, size, sha256',
        ),
        ('num_classes', KeyError, f'models.{NAME}: Object missing required field `num_classes`'),
        ('num_classes', '1000', f'models.{NAME}.num_classes: Expected `int`, got `str`'),
        ('num_classes', 0, f'models.{NAME}: num_classes must be positive, not 0'),
        ('kernel_sizes', [3, 4, 5, 7], f'models.{NAME}: kernel_sizes must be odd and positive, not [3, 4, 5, 7]'),
        ('transform.crop_pct', 1.5, f'models.{NAME}.transform: crop_pct must be above 0 and at most 1, not 1.5'),
        ('transform.interpolation', 'cubic', f"models.{NAME}.transform: interpolation 'cubic' is unknown"),
        (
            'checkpoint.sha256',
            SHA256[:-1],
            f'models.{NAME}.checkpoint: sha256 must be 64 lower-case hexadecimal digits, not {SHA256[:-1]!r} '
            '(63 characters)',
        ),
        (
            'original.sha256',
            SHA256.upper(),
            f'models.{NAME}.original: sha256 must be 64 lower-case hexadecimal digits, not {SHA256.upper()!r} '
            '(64 characters)',
        ),
        ('checkpoint.size', 0, f'models.{NAME}.checkpoint: size must be positive, not 0'),
        ('checkpoint.sources', [], f'models.{NAME}.checkpoint: sources must list at least one place'),
        (
            'checkpoint.sources.0',
            {'url': 'https://a', 'file': 'b'},
            f'models.{NAME}.checkpoint.sources[0]: a source has exactly one of package, file, url, hub; found '
            "['file', 'url']",
        ),
        (
            'checkpoint.sources.0',
            {'url': 'ftp://a/b'},
            f"models.{NAME}.checkpoint.sources[0]: url must start with https://, http:// or file://, not 'ftp://a/b'",
        ),
        (
            'checkpoint.sources.0.hub.revision',
            'main',
            f'models.{NAME}.checkpoint.sources[0].hub: revision must be a full commit hash (40 hexadecimal digits), '
            "not 'main'",
        ),
        (
            'checkpoint.sources.0.hub.repo',
            'eca_resnet50',
            f"models.{NAME}.checkpoint.sources[0].hub: repo must be ORG/NAME, not 'eca_resnet50'",
        ),
        (
            'checkpoint.sources.0.hub.repo',
            '../..',
            f"models.{NAME}.checkpoint.sources[0].hub: repo must be ORG/NAME, not '../..'",
        ),
        *(
            (
                f'checkpoint.sources.0.{key}',
                path,
                f'models.{NAME}.checkpoint.sources[0]{where}: {key.rpartition(".")[2]} must be a relative path that '
                f'stays in its folder, not {path!r}',
            )
            for key, where in (('hub.file', '.hub'),)
            for path in ('../x', 'a/../../x', '/etc/passwd', 'C:\\x', '..\\x', '\\x', '')
        ),
        *(
            (
                'checkpoint.sources.0',
                {key: path},
                f'models.{NAME}.checkpoint.sources[0]: {key} must be a relative path that stays in its folder, '
                f'not {path!r}',
            )
            for key in ('file', 'package')
            for path in ('../x', '/etc/passwd', 'C:/x')
        ),
        (
            'original.file',
            '../a.pth',
            f"models.{NAME}.original: file must be a relative path that stays in its folder, not '../a.pth'",
        ),
    ],
)
def test_wrong_value_is_refused_with_file_and_key(path: str, value: object, said: str) -> None:
    assert refusal(text_with(path, value)) == said


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', 'models: a manifest is a mapping with the keys version and models'),
        ('- 1', 'models: a manifest is a mapping with the keys version and models'),
        ('version: 1', 'models: a manifest is a mapping with the keys version and models'),
        ('models: {}', 'version: expected 1, found None'),
        ('version: 2\nmodels: {}', 'version: expected 1, found 2'),
        ('version: 1\nmodels: {}\nmore: 1', 'more: unknown key; the nearest is models; there are version, models'),
        ('version: 1\nmodels: {a: 1}', 'models.a: a name is architecture.tag, such as eca_resnet50.k3557_in1k'),
        (
            'version: 1\nmodels: {../a.b: 1}',
            'models.../a.b: a name is architecture.tag, such as eca_resnet50.k3557_in1k',
        ),
        ('version: 1\nmodels: {1: 1}', 'models.1: a name is architecture.tag, such as eca_resnet50.k3557_in1k'),
        ('version: 1\nmodels: {a.b: 1}', 'models.a.b: Expected `object`, got `int`'),
    ],
)
def test_text_that_is_no_manifest_is_refused(text: str, said: str) -> None:
    assert refusal(text) == said


@pytest.mark.parametrize('text', ['models: [', '\t', '!!python/object/apply:os.system [ls]', '"\\', '&a [*a]: 1'])
def test_text_that_is_no_safe_yaml_is_refused(text: str) -> None:
    assert refusal(text).startswith(('not a readable manifest: ', 'models: a manifest is a mapping'))


def test_tag_that_occurs_twice_is_refused_with_its_name() -> None:
    text = text_with('num_classes', 1000)
    body = text.split('models:\n', 1)[1].split('version:')[0]
    assert refusal(f'version: 1\nmodels:\n{body}{body}').startswith(
        f"not a readable manifest: key '{NAME}' occurs twice"
    )


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=f'^{tmp_path / "a.yaml"}: cannot read the manifest: No such file'):
        read_manifest(tmp_path / 'a.yaml')
    (tmp_path / 'b.yaml').write_bytes(b'\x80')
    with pytest.raises(ManifestError, match=f'^{tmp_path / "b.yaml"}: cannot read the manifest: '):
        read_manifest(tmp_path / 'b.yaml')


def test_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / 'm.yaml'
    for classes in (1000, 1001):
        temporary = tmp_path / f'{classes}'
        temporary.write_text(text_with('num_classes', classes))
        temporary.replace(path)
        assert read_manifest(path).models[NAME].num_classes == classes


def local_entry(sha256: str, *sources: Source) -> None:
    entry = packaged_manifest().models['test_eca_resnet.digits']
    record_entry('test_eca_resnet.digits', msgspec.structs.replace(entry, checkpoint=Checkpoint(10, sha256, sources)))


def test_packaged_hash_wins_over_a_local_one_and_the_log_says_so(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    packaged = packaged_manifest().models['test_eca_resnet.digits'].checkpoint
    local_entry(SHA256, Source(url='https://evil.invalid/x'))
    with caplog.at_level(logging.WARNING):
        assert load_manifest().models['test_eca_resnet.digits'].checkpoint == packaged
    assert caplog.messages == [
        f'{home / "weights_manifest.yaml"}: test_eca_resnet.digits: its SHA-256 {SHA256} differs from the packaged '
        f'{packaged.sha256}, which is used'
    ]


def test_local_mirrors_of_a_packaged_checkpoint_come_first(home: Path) -> None:
    packaged = packaged_manifest().models['test_eca_resnet.digits'].checkpoint
    mirror = Source(url='file:///mirror/model.safetensors')
    local_entry(packaged.sha256, mirror)
    assert load_manifest().models['test_eca_resnet.digits'].checkpoint.sources == (mirror, *packaged.sources)


def test_local_tags_extend_the_packaged_ones(home: Path) -> None:
    record_entry('eca_resnet50.mine', packaged_manifest().models[NAME])
    assert load_manifest().tags('eca_resnet50') == [NAME, 'eca_resnet50.mine']


def test_the_manifest_of_a_site_lies_between_the_packaged_and_the_local_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = packaged_manifest().models['test_eca_resnet.digits']
    site, local = Source(url='https://mirror.invalid/m'), Source(url='file:///mine')
    mirrored = msgspec.structs.replace(digits, checkpoint=msgspec.structs.replace(digits.checkpoint, sources=(site,)))
    path = tmp_path / 'site.yaml'
    path.write_text(dump_manifest(Manifest(models={'test_eca_resnet.digits': mirrored, 'eca_resnet18.site': mirrored})))
    local_entry(digits.checkpoint.sha256, local)
    monkeypatch.setenv('ECA_ZOO_MANIFEST', str(path))
    models = load_manifest().models
    assert models['test_eca_resnet.digits'].checkpoint.sources == (local, site, *digits.checkpoint.sources)
    assert models['eca_resnet18.site'] == mirrored


@pytest.mark.parametrize('place', ['ECA_ZOO_HOME', 'ECA_ZOO_MANIFEST'])
def test_a_manifest_that_is_refused_is_left_out_with_one_warning_and_an_error_where_it_may_be_needed(
    place: str, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home.mkdir()
    path = home / 'weights_manifest.yaml'
    said = f'{path}: models.a.b: Expected `object`, got `int`'
    if place == 'ECA_ZOO_MANIFEST':
        path = home / 'absent.yaml'
        said = f'{path}: there is no such manifest; correct ECA_ZOO_MANIFEST, or unset it'
        monkeypatch.setenv(place, str(path))
    else:
        path.write_text('version: 1\nmodels: {a.b: 1}\n')
    with caplog.at_level(logging.WARNING):
        assert usable_manifest() == usable_manifest() == packaged_manifest()
    assert caplog.messages == [f'{said}; what it lists is not known until it is mended']
    assert timm.create_model('test_eca_resnet.digits', pretrained=True).num_classes == 10
    assert timm.create_model('eca_resnet18', device='meta').num_classes == 1000
    with pytest.raises(ManifestError, match=re.escape(said)):
        timm.create_model('eca_resnet18', pretrained=True)


def test_names_expand_to_checkpoints() -> None:
    manifest = packaged_manifest()
    resnets = [name for name in manifest.models if name.startswith('eca_resnet')]
    assert expand_checkpoint_names(['all'], manifest) == ['test_eca_resnet.digits', 'test_maskrcnn.digits']
    assert expand_checkpoint_names(['eca_resnet50', NAME], manifest) == [NAME]
    assert expand_checkpoint_names(['eca_resnet*'], manifest) == resnets
    assert len(resnets) == 5
    with pytest.raises(InputError) as caught:
        expand_checkpoint_names(['eca_resnet5'], manifest)
    assert str(caught.value).startswith("no checkpoint is called 'eca_resnet5'; the nearest names are eca_resnet50")
    with pytest.raises(InputError, match="no checkpoint is called 'zzz\\*'; eca-zoo list shows what there is"):
        expand_checkpoint_names(['zzz*'], manifest)


def test_default_tag_is_the_first_whose_hash_is_known() -> None:
    manifest = packaged_manifest()
    entry = manifest.models['test_eca_resnet.digits']
    both = Manifest(models={NAME: manifest.models[NAME], 'eca_resnet50.mine': entry})
    assert expand_checkpoint_names(['eca_resnet50'], both) == ['eca_resnet50.mine']


def test_reported_average_precisions_are_those_of_the_published_table() -> None:
    models = packaged_manifest().models
    with packaged_path('reference/ecanet_coco.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        (name,) = packaged_manifest().tags(row['model'])
        figures = models[name].reported.box if row['task'] == 'bbox' else models[name].reported.mask
        assert msgspec.structs.asdict(figures) == {key: float(row[key]) for key in figures.__struct_fields__}
        assert models[name].authors_file.google_drive_id == row['google_drive_id']
