"""Sixty digits in the layouts that people have: the right accuracy, or one line that says what is not known."""

import shutil
from pathlib import Path

import pytest
import timm
import torch
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.models import save_for_hf
from timm.utils import accuracy

import eca_zoo
from eca_zoo.cli import main
from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import open_data
from eca_zoo.harness.leaderboard import run_leaderboard
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.suites import parse_suite
from tests.harness.image_sets import MODEL, digits, encoded, write_folder, write_named
from tests.harness.layouts import LAYOUTS, half_webp, laid_out, looping, plain, twice

QUICK = EvalSettings(batch_size=20, workers=0, device='cpu')
WORDS = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']


def counted(spec: DataSpec, model: str = MODEL) -> AccuracyResult:
    [result] = evaluate([ModelSpec(model)], spec, QUICK)
    assert result.error is None, result.error
    return result


def figures(spec: DataSpec, model: str = MODEL) -> tuple[float | None, int]:
    """Top-1 and number of images."""
    result = counted(spec, model)
    return result.top1, result.num_images


def remarks(spec: DataSpec) -> tuple[str, ...]:
    return open_data(spec).images.remarks


@pytest.mark.parametrize('name', LAYOUTS)
def test_validate_and_leaderboard_agree_with_timm_in_every_layout_that_timm_reads(name, tmp_path):
    layout = LAYOUTS[name]
    spec = laid_out(layout, tmp_path)
    result = counted(spec)
    assert (result.top1, result.num_images) == (100, min(60, layout.images_of_timm))
    assert timms(spec) == (100, layout.images_of_timm)
    lines = ''.join(
        f", {key}: '{getattr(spec, key)}'"
        for key in ('dataset', 'split', 'input_key', 'class_map')
        if getattr(spec, key)
    )
    text = f'version: 1\nmodels: [{MODEL}]\ndata: {{name: digits{lines}}}\naccuracy: {{device: cpu, workers: 0}}\n'
    board = run_leaderboard(parse_suite(text, tmp_path / 'suite.yaml'), tmp_path / 'run', spec.root)
    assert board is not None
    [row] = board.table.to_dict('records')
    assert (row['top1'], row['num_images']) == (result.top1, result.num_images)


def timms(spec: DataSpec) -> tuple[float, int]:
    """Top-1 and number of images as timm's script counts them."""
    model = timm.create_model(MODEL, pretrained=True).eval()
    dataset = create_dataset(
        spec.dataset,
        root=str(spec.root),
        split=spec.split,
        input_key=spec.input_key,
        class_map=str(spec.class_map or ''),
    )
    config = resolve_data_config({}, model=model, use_test_size=True)
    loader = create_loader(dataset, config['input_size'], 60, num_workers=0, device=torch.device('cpu'), **{
        key: config[key] for key in ('mean', 'std', 'interpolation', 'crop_pct', 'crop_mode')
    })  # fmt: skip
    right = total = 0.0
    with torch.inference_mode():
        for images, target in loader:
            right += accuracy(model(images), target)[0].item() * len(target)
            total += len(target)
    return round(right / total, 4), int(total)


@pytest.mark.parametrize('name', ['plain', 'split', 'tar', 'unique leaves', 'two formats', 'part of the classes'])
def test_images_and_labels_are_those_of_timms_reader_in_its_order(name, tmp_path):
    spec = laid_out(LAYOUTS[name], tmp_path)
    reader = create_dataset(
        '', root=str(spec.root), split='validation', input_key=spec.input_key, class_map=str(spec.class_map or '')
    ).reader
    images = open_data(spec).images
    assert images.names() == reader.filenames()
    labels = [int(label) for label in (reader.targets if spec.root.suffix else [label for _, label in reader.samples])]
    assert [images.open(position).label for position in range(len(images))] == labels


def test_one_folder_name_under_several_parents_is_an_error_that_names_two_and_the_flag(tmp_path):
    root = write_named(tmp_path / 'nested', lambda index, label: f'{label}/cam{index % 7}/{index:04d}.png')
    with pytest.raises(InputError) as error:
        open_data(DataSpec(root=root))
    assert str(error.value) == (
        f'{root}: 0/cam0 and 1/cam0 have one name, so whether it is their class is not known; --class-level top takes '
        'the first folder as the class, --class-level leaf the innermost one'
    )
    assert figures(DataSpec(root=root, class_level='top')) == (100, 60)
    assert open_data(DataSpec(root=root, class_level='leaf')).class_names == tuple(
        f'cam{camera}' for camera in range(7)
    )


def test_the_first_folder_in_a_tar_is_the_class_with_the_same_flag(tmp_path, capsys):
    nested = write_named(tmp_path / 'nested', lambda index, label: f'{label}/cam{index % 3}/{index:04d}.png')
    shutil.make_archive(str(nested), 'tar', nested)
    command = ['validate', '-m', MODEL, '--data-dir', f'{nested}.tar', '--device', 'cpu', '-j', '0']
    assert main([*command, '--class-level', 'top']) == 0
    assert '100.0000' in capsys.readouterr().out
    assert main(command) == 2
    assert '0/cam0 and 1/cam0 have one name' in capsys.readouterr().err


def test_the_level_of_classes_is_a_key_of_suites_and_a_keyword_in_python(tmp_path):
    root = write_named(tmp_path / 'nested', lambda index, label: f'{label}/cam{index % 3}/{index:04d}.png')
    text = 'version: 1\nmodels: [{}]\ndata: {{name: digits, class_level: {}}}\naccuracy: {{device: cpu, workers: 0}}\n'
    suite = parse_suite(text.format(MODEL, 'top'), tmp_path / 'suite.yaml')
    board = run_leaderboard(suite, tmp_path / 'run', root)
    assert board is not None
    assert board.table['top1'].tolist() == [100]
    assert eca_zoo.evaluate(MODEL, root, class_level='top', device='cpu', workers=0)['top1'].tolist() == [100]
    with pytest.raises(InputError, match=r"suite.yaml: data.class_level: Invalid enum value 'first'"):
        parse_suite(text.format(MODEL, 'first'), tmp_path / 'suite.yaml')
    with pytest.raises(InputError, match="class_level: Invalid enum value 'first'"):
        eca_zoo.evaluate(MODEL, root, class_level='first')


def test_a_folder_of_images_in_a_class_folder_is_named_as_a_class_of_its_own(tmp_path):
    root = plain(tmp_path / 'digits')
    (root / '3' / 'crops').mkdir()
    shutil.copy(next((root / '3').glob('*.png')), root / '3' / 'crops')
    assert remarks(DataSpec(root=root)) == (
        f'{root}: 3/crops is a class of its own, and 3 around it another; --class-level top makes them one',
    )
    assert figures(DataSpec(root=root, class_level='top')) == (100, 61)


@pytest.mark.parametrize('dataset', ['hfds/x', 'wds/x', 'torch/mnist'])
def test_the_level_of_classes_is_no_setting_of_other_data_sets(tmp_path, dataset):
    with pytest.raises(InputError, match=f'{dataset}: it takes no --class-level; leave it out'):
        open_data(DataSpec(root=tmp_path, dataset=dataset, class_level='top'))


HIDDEN = ['c3/.ipynb_checkpoints/x.png', '__MACOSX/c3/x.png', 'c3/@eaDir/x.png', 'c3/._0003.png', '.Trash/c3/x.png']


@pytest.mark.parametrize('hidden', HIDDEN)
@pytest.mark.parametrize('kind', ['folder', 'tar', 'torch/image_folder'])
def test_what_belongs_to_the_system_is_ignored_with_a_warning(hidden, kind, tmp_path):
    root = write_named(tmp_path / 'digits', lambda index, label: f'c{label}/{index:04d}.png')
    (root / hidden).parent.mkdir(parents=True, exist_ok=True)
    (root / hidden).write_bytes(encoded(digits()[3][0]))
    (root / 'c3' / '.DS_Store').write_bytes(b'x')
    spec = DataSpec(root=root, dataset=kind if '/' in kind else '')
    if kind == 'tar':
        shutil.make_archive(str(root), 'tar', root)
        spec = DataSpec(root=Path(f'{root}.tar'))
    assert figures(spec) == (100, 60)
    [remark] = remarks(spec)
    assert remark.startswith(f'{spec.root}: hidden images, or folders with images, are ignored (1: ')
    assert open_data(spec).class_names == tuple(f'c{value}' for value in range(10))


def test_nine_classes_and_a_hidden_folder_are_nine_classes(tmp_path):
    root = write_named(tmp_path / 'digits', lambda index, label: f'c{label}/{index:04d}.png')
    shutil.rmtree(root / 'c9')
    (root / 'c3' / '.ipynb_checkpoints').mkdir()
    shutil.copy(next((root / 'c3').glob('*.png')), root / 'c3' / '.ipynb_checkpoints' / 'x.png')
    [result] = evaluate([ModelSpec(MODEL)], DataSpec(root=root), QUICK)
    assert result.exit_code == 2
    assert result.error.startswith(f'{root}: it has 9 classes (c0, c1, c2, ...) and {MODEL} has 10 classes; ')


def test_an_empty_class_folder_is_named(tmp_path):
    root = plain(tmp_path / 'digits')
    shutil.rmtree(root / '9')
    (root / '9').mkdir()
    [result] = evaluate([ModelSpec(MODEL)], DataSpec(root=root), QUICK)
    assert result.exit_code == 2
    assert result.error.endswith('; there are folders without an image that counts (1: 9)')


def test_an_empty_class_folder_is_named_where_the_others_are_a_part_of_the_models_classes(tmp_path):
    root = plain(tmp_path / 'digits')
    shutil.rmtree(root / '4')
    (root / '4').mkdir()
    spec = DataSpec(root=root)
    assert figures(spec) == (100, sum(label != 4 for _, label in digits()))
    assert remarks(spec) == (f'{root}: folders without an image that counts (1: 4)',)
    shutil.make_archive(str(root), 'tar', root)
    assert remarks(DataSpec(root=Path(f'{root}.tar'))) == (f'{root}.tar: folders without an image that counts (1: 4)',)


def test_a_link_that_loops_ends_and_every_real_file_counts_once(tmp_path, caplog):
    spec = DataSpec(root=looping(tmp_path / 'digits'))
    result = counted(spec)
    assert (result.num_images, result.top1_ci95) == (60, 3.0086)
    message = f'{spec.root}: what is there more than once counts once (1: 3/again)'
    assert [record.getMessage() for record in caplog.records] == [message]


def test_a_member_of_a_tar_that_is_there_twice_counts_once(tmp_path):
    spec = DataSpec(root=twice(tmp_path / 'digits.tar'))
    result = counted(spec)
    assert (result.num_images, result.top1_ci95) == (60, 3.0086)
    assert remarks(spec) == (
        f'{spec.root}: what is there more than once counts once (60: 0/0000.png, 1/0001.png, 2/0002.png, ...)',
    )


@pytest.mark.parametrize('kind', ['folder', 'tar'])
def test_images_of_other_formats_are_counted_in_a_warning_that_names_the_flag(kind, tmp_path):
    root = half_webp(tmp_path / 'digits')
    if kind == 'tar':
        shutil.make_archive(str(root), 'tar', root)
        root = Path(f'{root}.tar')
    spec = DataSpec(root=root)
    assert figures(spec) == (100, 30)
    assert remarks(spec)[0] == (
        f"{root}: images of other formats do not count (30 .webp); --input-key '.png;.jpg;.jpeg;.webp' reads them too"
    )
    assert figures(DataSpec(root=root, input_key='.png;.jpg;.jpeg;.webp')) == (100, 60)
    assert remarks(DataSpec(root=root, input_key='.png;.jpg;.jpeg;.webp')) == ()


@pytest.mark.parametrize('extension', ['avif', 'bmp', 'tif', 'tiff', 'gif', 'WEBP', 'jfif'])
def test_every_format_that_is_not_read_is_noticed(extension, tmp_path):
    root = plain(tmp_path / 'digits')
    (root / '3' / f'x.{extension}').write_bytes(b'x')
    [remark] = remarks(DataSpec(root=root))
    assert f'(1 .{extension.lower()})' in remark


def test_the_number_of_images_is_a_column_beside_timms(tmp_path):
    results = tmp_path / 'results.csv'
    root = half_webp(tmp_path / 'digits')
    assert main(['validate', '-m', MODEL, str(root), '--device', 'cpu', '-j', '0', '--results-file', str(results)]) == 0
    header, row = results.read_text().splitlines()
    assert header == 'model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation,num_images'
    assert row.endswith(',30')


@pytest.fixture(scope='module')
def named(tmp_path_factory):
    """A folder with the network of the digits and a config that names its classes."""
    folder = tmp_path_factory.mktemp('named')
    save_for_hf(timm.create_model(MODEL, pretrained=True), folder, model_config={'label_names': WORDS})
    return f'local-dir:{folder}'


def test_names_that_a_models_config_gives_to_its_classes_map_by_name(tmp_path, named):
    root = write_folder(tmp_path / 'digits', names=WORDS)
    assert figures(DataSpec(root=root), named) == (100, 60)


def test_a_byte_order_mark_in_a_models_config_is_named(tmp_path, named):
    folder = shutil.copytree(named.removeprefix('local-dir:'), tmp_path / 'marked')
    (folder / 'config.json').write_bytes(b'\xef\xbb\xbf' + (folder / 'config.json').read_bytes())
    [result] = evaluate([ModelSpec(f'local-dir:{folder}')], DataSpec(root=plain(tmp_path / 'digits')), QUICK)
    assert result.error.startswith(f'local-dir:{folder}: its config cannot be read: Unexpected UTF-8 BOM')
    assert result.error.endswith('; save config.json without a byte-order mark')


def test_names_of_a_part_of_a_models_classes_map_by_name_with_a_warning(tmp_path, named, caplog):
    root = write_folder(tmp_path / 'digits', names=WORDS)
    shutil.rmtree(root / 'validation' / 'zero')
    assert figures(DataSpec(root=root), named) == (100, sum(label != 0 for _, label in digits()))
    assert [record.getMessage() for record in caplog.records] == [f'{root}: it has 9 of the 10 classes of {named}']


def test_other_names_than_the_models_map_in_order_with_a_warning(tmp_path, named, caplog):
    root = write_folder(tmp_path / 'digits', names=[f'digit{value}' for value in range(10)])
    assert figures(DataSpec(root=root), named) == (100, 60)
    assert [record.getMessage() for record in caplog.records] == [
        f'{root}: {named} has other names (zero, one, two, ...) for its classes: whether the order is the same is not '
        'known; say which is which with --class-map FILE'
    ]


def test_numbers_are_class_indices_also_of_a_model_that_names_its_classes(tmp_path, named, caplog):
    assert figures(DataSpec(root=plain(tmp_path / 'digits')), named) == (100, 60)
    assert caplog.records == []


def test_a_network_that_was_built_maps_by_the_names_in_its_cfg(tmp_path):
    model = timm.create_model(MODEL, pretrained=True, pretrained_cfg_overlay={'label_names': WORDS})
    root = write_folder(tmp_path / 'digits', names=WORDS)
    [result] = evaluate([ModelSpec(MODEL, module=model)], DataSpec(root=root), QUICK)
    assert (result.top1, result.num_images) == (100, 60)
