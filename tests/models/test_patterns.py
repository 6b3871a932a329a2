"""Names of networks mean one thing in all commands."""

import pytest
import timm

from eca_zoo.arguments import model_specs
from eca_zoo.cli import build_parser
from eca_zoo.detection import list_detectors
from eca_zoo.errors import InputError
from eca_zoo.harness.networks.model_names import expand_model_names
from eca_zoo.models import list_zoo
from eca_zoo.models.patterns import _say_others
from eca_zoo.weights.checkpoint_names import expand_checkpoint_names
from eca_zoo.weights.manifest import packaged_manifest

OWN = [architecture.name for architecture in list_zoo()]
NAMES = ['zoo', 'eca_*', 'eca_resnet*', '*eca_resnet*', 'all', 'eca_resnet50', 'eca_resnet50.*', 'eca_mobilenetv2']


@pytest.fixture(autouse=True)
def _said_anew():
    _say_others.cache_clear()


@pytest.mark.parametrize('name', NAMES)
def test_commands_for_checkpoints_take_of_a_name_what_this_package_has(name):
    networks = {one.partition('.')[0] for one in expand_model_names([name])}
    known = {one.partition('.')[0] for one in packaged_manifest().models}
    checkpoints = {one.partition('.')[0] for one in expand_checkpoint_names([name], packaged_manifest())}
    # Detectors are none of timm's networks.
    assert checkpoints - set(list_detectors()) == networks & known


def test_lists_of_names_are_read_by_all_commands(tmp_path):
    file = tmp_path / 'some.txt'
    file.write_text('# these\neca_resnet50\n\nzoo\n')
    assert expand_model_names([str(file)])[0] == 'eca_resnet50'
    assert expand_checkpoint_names([str(file)], packaged_manifest())[:2] == [
        'eca_resnet50.k3557_in1k', 'eca_resnet18.k3577_in1k',
    ]  # fmt: skip


@pytest.mark.parametrize(
    'expand', [expand_model_names, lambda names: expand_checkpoint_names(names, packaged_manifest())]
)
def test_a_pattern_that_catches_networks_of_timms_own_says_so_once(expand, caplog):
    expand(['eca_*'])
    expand(['eca_*'])
    count = len(timm.list_models('eca_*'))
    assert caplog.messages == [
        f"'eca_*' stands for {count} networks, {count - len(OWN)} of them timm's own (eca_botnext26ts_256, "
        f'eca_halonext26ts, eca_nfnet_l0 and {count - len(OWN) - 3} more); zoo stands for the six of the ECA-Net '
        'authors alone'
    ]  # fmt: skip
    caplog.clear()
    for quiet in ('zoo', 'eca_resnet1*', 'all', 'test_eca*'):
        expand([quiet])
    assert caplog.messages == []


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('plain', "'plain' stands for networks of timm's own, whose weights timm fetches by itself"),
        ('resnet50', "'resnet50' is timm's own, whose weights timm fetches by itself; eca-zoo list shows ours"),
        ('resnet50.a1_in1k', "'resnet50.a1_in1k' is timm's own, whose weights timm fetches by itself"),
        (
            'eca_nfnet*',
            "'eca_nfnet*' stands for networks of timm's own alone (eca_nfnet_l0, eca_nfnet_l1, eca_nfnet_l2 ",
        ),
    ],
)
def test_networks_of_timms_own_are_refused_by_commands_for_checkpoints(name, message):
    with pytest.raises(InputError) as error:
        expand_checkpoint_names([name], packaged_manifest())
    assert str(error.value).startswith(message)


@pytest.mark.parametrize('command', ['validate', 'benchmark', 'fetch', 'verify', 'list', 'publish'])
def test_the_help_of_every_command_names_the_zoo(command):
    (subparsers,) = (action for action in build_parser()._actions if action.dest == 'command')
    text = ' '.join(subparsers.choices[command].format_help().split())
    assert "zoo (the authors' six)" in text
    assert 'text file' in text


def test_patterns_may_overlap():
    specs = model_specs(['eca_resnet18', 'zoo', 'eca_resnet1*'], None, True, None, None, None)
    assert [spec.name for spec in specs] == ['eca_resnet18', *OWN[1:]]
