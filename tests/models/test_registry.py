"""One record a network: what derives from it agrees, and a network more is one record more."""

import csv
import os
import sys
from pathlib import Path

import pytest
import timm

from eca_zoo.harness.networks.model_names import expand_model_names
from eca_zoo.models import Architecture, EcaLayer, list_architectures, list_zoo, register_architecture
from eca_zoo.models.resnet import RESNET
from eca_zoo.resources import packaged_path
from eca_zoo.weights.manifest import packaged_manifest
from tests.reference_checkpoints import layouts
from tests.spawning import run_python

ROOT = Path(__file__).parents[2]
RECORDS = {record.name: record for record in list_architectures()}
EACH = pytest.mark.parametrize('record', RECORDS.values(), ids=RECORDS)


def published() -> list[str]:
    """The networks of the authors' table."""
    with packaged_path('reference/ecanet_imagenet.csv').open() as file:
        return [row['model'] for row in csv.DictReader(file)]


def test_zoo_is_the_authors_table_and_each_of_it_has_an_entry_with_their_file():
    assert [record.name for record in list_zoo()] == published() == list(layouts()) == expand_model_names(['zoo'])
    for record in list_zoo():
        (name,) = packaged_manifest().tags(record.name)
        entry = packaged_manifest().models[name]
        assert entry.authors_file is not None
        assert (entry.kernel_sizes, entry.transform) == (record.kernel_sizes, record.transform)
        assert name.startswith(f'{record.name}.k{"".join(map(str, record.kernel_sizes))}_')


def test_every_entry_of_the_manifest_has_a_record():
    networks = [name for name, entry in packaged_manifest().models.items() if not entry.is_detector]
    assert {name.partition('.')[0] for name in networks} <= RECORDS.keys()


@EACH
def test_timm_knows_the_network_by_what_its_record_says(record):
    entry_point = timm.models.model_entrypoint(record.name)
    assert (entry_point.__name__, entry_point.__module__) == (record.name, record.family.module)
    assert entry_point is getattr(sys.modules[record.family.module], record.name)
    assert entry_point.__doc__ == f'{record.description}; kernel sizes {", ".join(map(str, record.kernel_sizes))}.'
    for cfg in timm.models.get_arch_pretrained_cfgs(record.name).values():
        assert {'first_conv': cfg.first_conv, 'classifier': cfg.classifier} == record.cfg_fields
    network = timm.create_model(record.name, device='meta')
    assert network.get_classifier() is network.get_submodule(record.cfg_fields['classifier'])
    assert network.get_submodule(record.cfg_fields['first_conv']).weight is next(network.parameters())


@EACH
def test_plain_counterpart_lacks_the_ecas_layers_alone(record):
    if record.plain is None:
        assert not record.is_in_zoo
        return
    ours = timm.create_model(record.name, num_classes=1000, device='meta')
    gates = {f'{name}.conv.weight' for name, module in ours.named_modules() if isinstance(module, EcaLayer)}
    shapes = {key: tensor.shape for key, tensor in ours.state_dict().items() if key not in gates}
    plain = timm.create_model(record.plain, num_classes=1000, device='meta').state_dict()
    assert gates
    assert shapes == {key: tensor.shape for key, tensor in plain.items()}
    assert record.plain in expand_model_names(['plain'])


@pytest.mark.parametrize('name', ['resnet50', 'eca_resnet50', 'eca-net', 'ECA'])
def test_name_that_is_taken_or_cannot_name_a_checkpoint_is_refused(name):
    with pytest.raises(ValueError, match=r'timm knows a network|a network is named with a-z, 0-9 and _ alone'):
        register_architecture(Architecture(name, 'x', RESNET, {}, kernel_sizes=(3, 3, 3, 3), plain=None))
    assert list_architectures() == list(RECORDS.values())


# Registries have no way back: a process of its own.
RESNEXT = """
import sys, timm, torch
from pathlib import Path
from timm.models.resnet import Bottleneck
from eca_zoo.cli import main
from eca_zoo.harness.networks.model_names import expand_model_names
from eca_zoo.models import Architecture, register_architecture
from eca_zoo.models.resnet import RESNET
from eca_zoo.weights.convert.recognition import recognise

NAME, TAG = 'eca_resnext50_32x4d', 'eca_resnext50_32x4d.k3557'
register_architecture(Architecture(
    NAME,
    'ResNeXt-50 with an ECA layer in each block',
    RESNET,
    {'block': Bottleneck, 'layers': (3, 4, 6, 3), 'cardinality': 32, 'base_width': 4},
    kernel_sizes=(3, 5, 5, 7),
    plain='resnext50_32x4d',
))
"""
CONVERT = f"""{RESNEXT}
torch.manual_seed(0)
network = timm.create_model(NAME)
cfg = network.pretrained_cfg
print(cfg['interpolation'], cfg['crop_pct'], cfg['first_conv'], cfg['classifier'])
state = {{'module.' + key.replace('.se.', '.eca.'): tensor for key, tensor in network.state_dict().items()}}
torch.save({{'epoch': 1, 'state_dict': state}}, sys.argv[1])
assert main(['convert', sys.argv[1], '--model', NAME]) == 0
assert main(['list', NAME, '--format', 'csv']) == 0
print(timm.list_pretrained('eca_resnext50*'), [name for name in expand_model_names(['zoo']) if 'resnext' in name])
print(recognise(timm.create_model('eca_resnet50', device='meta').state_dict()).architecture)
"""
LOAD = f"""{RESNEXT}
for network in (timm.create_model(NAME, pretrained=True), timm.create_model(TAG, pretrained=True, num_classes=3)):
    print(network.num_classes, network.pretrained_cfg['tag'], network.pretrained_cfg['interpolation'])
state = torch.load(sys.argv[1], weights_only=True)['state_dict']
loaded = timm.create_model(NAME, pretrained=True).state_dict()
assert all(torch.equal(a, b) for a, b in zip(loaded.values(), state.values(), strict=True))
timm.create_model(NAME, checkpoint_path=sys.argv[1])
assert main(['verify', TAG]) == 0
"""


def test_a_network_more_is_one_record_more(tmp_path):
    environment = os.environ | {'ECA_ZOO_HOME': str(tmp_path / 'home'), 'PYTHONPATH': str(ROOT)}
    checkpoint = tmp_path / 'resnext.pth.tar'

    def lines(script: str) -> list[str]:
        done = run_python('-c', script, checkpoint, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    transform, converted, *_, header, row, pretrained, other = lines(CONVERT)
    tag = 'eca_resnext50_32x4d.k3557'
    assert transform == 'bilinear 0.875 conv1 fc'
    assert converted == f'{tag}: kernel sizes [3, 5, 5, 7], 1000 classes'
    assert header.startswith('model,params,')
    assert row.startswith(f'{tag},25028984,')
    assert row.endswith(',here')
    assert pretrained == f"['{tag}'] []"
    assert other == 'eca_resnet50'
    whole, adapted, verified = lines(LOAD)
    assert (whole, adapted) == ('1000 k3557 bilinear', '3 k3557 bilinear')
    assert verified.startswith(f'{tag}  ok  ')
