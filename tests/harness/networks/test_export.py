"""Export: files that give the eager logits for any batch size, and nothing left behind when it fails."""

import os
import threading

import pytest
import timm
import torch

from eca_zoo.cli import main
from eca_zoo.errors import InputError, RunError
from eca_zoo.harness.networks import export
from eca_zoo.harness.networks.export import export_model, export_network

SIZE = (3, 64, 64)


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return timm.create_model('test_eca_resnet')


def test_an_onnx_file_gives_the_eager_logits_for_any_batch_size(model, tmp_path):
    onnx, onnxruntime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    report = export_model(model.train(), SIZE, tmp_path / 'eca.onnx')
    assert report.error < 1e-5
    assert report.size == report.path.stat().st_size
    assert [file.name for file in tmp_path.iterdir()] == ['eca.onnx']
    assert model.training
    written = onnx.load(report.path)
    onnx.checker.check_model(written)
    assert [(opset.domain, opset.version) for opset in written.opset_import] == [('', report.opset)]
    session = onnxruntime.InferenceSession(report.path, providers=['CPUExecutionProvider'])
    for batch in (1, 2, 7):
        images = torch.randn(batch, *SIZE)
        with torch.no_grad():
            expected = model.eval()(images)
        actual = torch.from_numpy(session.run(None, {'input': images.numpy()})[0])
        assert (actual - expected).norm() / expected.norm() < 1e-5


def test_an_exported_program_gives_the_eager_logits_for_any_batch_size(model, tmp_path):
    report = export_model(model, SIZE, tmp_path / 'eca.pt2', 'torch-export')
    assert (report.format, report.opset) == ('torch-export', None)
    program = torch.export.load(report.path).module()
    images = torch.randn(5, *SIZE)
    with torch.no_grad():
        assert torch.allclose(program(images), model.eval()(images), rtol=1e-5, atol=1e-6)


def test_a_link_stays_a_link_and_a_pipe_a_pipe(model, tmp_path):
    link, pipe, read = tmp_path / 'link.pt2', tmp_path / 'pipe', []
    link.symlink_to('eca.pt2')
    export_model(model, SIZE, link, 'torch-export')
    assert link.is_symlink()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    report = export_model(model, SIZE, pipe, 'torch-export')
    reader.join()
    assert (len(read[0]), pipe.is_fifo()) == (report.size, True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ['eca.pt2', 'link.pt2', 'pipe']


def test_the_operator_set_can_be_chosen(model, tmp_path):
    pytest.importorskip('onnxscript')
    assert export_model(model, SIZE, tmp_path / 'eca.onnx', opset=18).opset == 18


def test_a_file_with_other_logits_never_gets_its_name(model, tmp_path, monkeypatch):
    write = export._write_torch_export

    def write_other(*arguments):
        run = write(*arguments)
        return lambda images: run(images) * 1.001

    monkeypatch.setattr(export, '_write_torch_export', write_other)
    with pytest.raises(RunError, match=r'^eca.pt2: the exported network differs from the eager one by 1.0e-03'):
        export_model(model, SIZE, tmp_path / 'eca.pt2', 'torch-export')
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_exported_is_one_line_and_leaves_nothing(tmp_path):
    class Branching(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(RunError, match=r'^eca.pt2: the network cannot be exported to torch-export: ') as error:
        export_model(Branching(), SIZE, tmp_path / 'eca.pt2', 'torch-export')
    assert '\n' not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'format': 'tflite'}, "format 'tflite' is unknown; use one of onnx, torch-export"),
        ({'opset': 7}, 'opset 7 is too old for the exporter; use 18 or newer'),
        ({'img_size': 0}, 'img_size must be at least 1, not 0'),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments, message, tmp_path):
    with pytest.raises(InputError) as error:
        export_network('test_eca_resnet', tmp_path / 'eca.onnx', **{'pretrained': False, **arguments})
    assert str(error.value) == message


def test_a_folder_that_is_not_there_is_named_before_anything_is_built(tmp_path, capsys):
    assert main(['export', 'eca_resnet152', '--random-weights', '--out', str(tmp_path / 'no' / 'eca.onnx')]) == 2
    assert f'there is no folder {tmp_path}/no that can be; choose another --out' in capsys.readouterr().err


def test_weights_that_need_conversion_are_refused_with_the_remedy(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['export', 'eca_resnet18']) == 2
    assert 'eca-zoo convert eca_resnet18_k3577.pth.tar' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_network_is_exported_at_a_time(capsys):
    assert main(['export', 'zoo']) == 2
    assert "'zoo' stands for 6 networks; name one" in capsys.readouterr().err


@pytest.mark.parametrize('format', ['onnx', 'torch-export'])
def test_the_form_for_inference_is_exported_on_request(format, tmp_path, capsys):
    plain, fused = (tmp_path / f'{name}{export.FORMATS[format]}' for name in ('plain', 'fused'))
    arguments = ['test_eca_resnet.digits', '--format', format, '--out']
    assert main(['export', *arguments, str(plain)]) == main(['export', *arguments, str(fused), '--fuse']) == 0
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected, actual = (run_file(path, images) for path in (plain, fused))
    assert (actual - expected).norm() / expected.norm() < 1e-5
    if format == 'torch-export':
        graph = torch.export.load(fused).module().graph
        assert not any('norm' in str(node.target) for node in graph.nodes)


def run_file(path, images):
    if path.suffix == '.pt2':
        return torch.export.load(path).module()(images)
    session = pytest.importorskip('onnxruntime').InferenceSession(path, providers=['CPUExecutionProvider'])
    return torch.from_numpy(session.run(None, {'input': images.numpy()})[0])


def test_a_network_without_such_a_form_is_refused(tmp_path, capsys):
    path = tmp_path / 'x.onnx'
    assert main(['export', 'test_convnext', '--random-weights', '--fuse', '--out', str(path)]) == 2
    assert capsys.readouterr().err == (
        'eca-zoo export: error: test_convnext: there is no convolution followed by a batch norm to fold; use the '
        'network as it is (leave out fuse)\n'
    )


def test_the_command_says_what_it_wrote(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ['--format', 'torch-export', '--random-weights', '--img-size', '32']
    assert main(['export', '-m', 'test_eca_resnet', *arguments]) == 0
    size = (tmp_path / 'test_eca_resnet.pt2').stat().st_size
    assert f'test_eca_resnet.pt2: {size} bytes, torch-export, dynamic batch' in capsys.readouterr().out


def test_the_weights_of_a_checkpoint_are_exported_in_the_format_that_the_name_says(tmp_path, capsys):
    torch.manual_seed(1)
    trained = timm.create_model('test_eca_resnet', num_classes=7).eval()
    torch.save({'state_dict': trained.state_dict()}, tmp_path / 'mine.pth')
    path = tmp_path / 'mine.pt2'
    arguments = ['test_eca_resnet', '--checkpoint', str(tmp_path / 'mine.pth'), '--out', str(path)]
    assert main(['export', *arguments]) == 0
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(run_file(path, image), trained(image))
    assert main(['export', *arguments[:2], str(tmp_path / 'absent.pth'), *arguments[3:]]) == 2
    assert 'absent.pth: there is no such checkpoint; check --checkpoint' in capsys.readouterr().err
