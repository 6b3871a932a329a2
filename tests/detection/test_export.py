"""Export: the networks of one-stage detectors for images of any size; what cannot be exported is said in one line."""

import pytest

from eca_zoo.cli import main
from eca_zoo.detection import create_detector
from eca_zoo.detection.evaluation.detector_spec import DetectorSpec
from eca_zoo.detection.export import export_detector


def test_the_file_gives_the_eager_outputs_for_images_of_any_size(tmp_path):
    detector = create_detector('retinanet', backbone='test_eca_resnet', channels=16, num_classes=2).eval()
    [report] = export_detector(DetectorSpec('small', module=detector), tmp_path / 'small.onnx')
    assert report.error < 1e-5  # of two sizes, neither of them square
    assert report.size == (tmp_path / 'small.onnx').stat().st_size


def test_two_stages_are_a_file_each(tmp_path, capsys):
    out = tmp_path / 'digits.onnx'
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'digits.boxes.onnx').symlink_to(tmp_path / 'elsewhere' / 'boxes.onnx')
    assert main(['export', 'test_maskrcnn.digits', '--out', str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ['digits.onnx', 'digits.boxes.onnx', 'digits.masks.onnx']
    assert [line.partition(':')[0] for line in lines] == [str(tmp_path / name) for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, 'elsewhere'])
    assert (tmp_path / 'digits.boxes.onnx').is_symlink()
    assert [path.name for path in (tmp_path / 'elsewhere').iterdir()] == ['boxes.onnx']
    # In float32, of images of three sizes and of one to nine boxes.
    assert all(float(line.split(' by ')[1].split()[0]) < 1e-5 for line in lines)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['retinanet_*'], "'retinanet_*' stands for 2 detectors; name one"),
        (['retinanet_eca_resnet50_fpn', '--format', 'torch-export'], 'detectors are exported to onnx'),
        (['retinanet_eca_resnet50_fpn', '--img-size', '64'], 'a detector is exported for images of any size'),
        (['retinanet_eca_resnet50_fpn'], 'needs conversion'),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(['export', *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
