"""The flags of all commands: one name, one default and one meaning each; other names are understood."""

import argparse
import dataclasses
from typing import get_type_hints

import pytest

from eca_zoo.cli import build_parser
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.speed.settings import ThroughputSettings
from eca_zoo.training.loop import LoopSettings
from eca_zoo.training.recipes.recipe import Recipe, recipe_keys
from eca_zoo.training.start import TrainSettings
from eca_zoo.vocabulary import EARLIER_NAMES, TIMM_NAMES

# Without them `leaderboard` does what the suite says, and `train` what its recipe says.
# A training has one network to restart. A suite may have several data sets, and `detect` writes a folder.
OWN_DEFAULTS = {
    ('leaderboard', 'device'),
    ('leaderboard', 'data_dir'),
    ('detect', 'out'),
    ('train', 'restart'),
    *(('train', key) for key in recipe_keys()),
}
# What the formats, and what one or several models, are is the command's.
OF_THE_COMMAND = {'help', 'format', 'model'}


def commands():
    (subparsers,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return subparsers.choices


def flags():
    for command, parser in commands().items():
        for action in parser._actions:
            if action.option_strings and action.help != argparse.SUPPRESS:
                yield command, action


def test_a_flag_has_one_default_and_one_kind_of_value_in_all_commands():
    seen = {}
    for command, action in flags():
        if (command, action.dest) in OWN_DEFAULTS or action.dest in OF_THE_COMMAND:
            continue
        kind = action.default, action.metavar
        for flag in action.option_strings:
            seen.setdefault(flag, {}).setdefault(str(kind), []).append(command)
    assert {flag: kinds for flag, kinds in seen.items() if len(kinds) > 1} == {}


@pytest.mark.parametrize(
    ('command', 'kind', 'without'),
    [
        ('validate', EvalSettings, ()),
        ('validate', DataSpec, ('root', 'label')),
        ('benchmark', ThroughputSettings, ('train',)),
        ('train', LoopSettings, ('save_seconds', 'save_steps')),
        ('train', TrainSettings, ()),
        ('train', Recipe, ('data',)),
    ],
)
def test_every_setting_is_a_flag_of_its_name(command, kind, without):
    known = {flag for name, action in flags() if name == command for flag in action.option_strings}
    wanted = {f'--{one.name.replace("_", "-")}' for one in dataclasses.fields(kind) if one.name not in without}
    assert wanted - known == set()


@pytest.mark.parametrize(
    ('name', 'other'),
    [(name, other) for names in (TIMM_NAMES, EARLIER_NAMES) for name, o in names.items() for other in o],
)
def test_timms_names_and_earlier_ones_are_the_same_flag(name, other):
    flag = f'--{other.replace("_", "-")}'
    found = [
        action.dest
        for parser in commands().values()
        for action in parser._actions
        if flag in action.option_strings and action.dest == name
    ]
    assert found or (name, other) == ('data_dir', 'root')


def test_a_flag_of_a_recipe_says_what_its_name_says():
    subparsers = next(action for action in build_parser()._actions if isinstance(action.choices, dict))
    actions = {flag: action for action in subparsers.choices['train']._actions for flag in action.option_strings}
    for key, kind in get_type_hints(Recipe).items():
        flag = f'--{key.replace("_", "-")}'
        if key != 'data':
            assert actions[flag].dest == key
        if kind is bool:
            assert getattr(build_parser().parse_args(['train', 'digits', flag]), key) is True
    assert build_parser().parse_args(['train', 'digits', '--decay-rate', '0.5']).decay_rate == 0.5
    assert build_parser().parse_args(['train', 'digits', '--no-model-ema']).model_ema is False


@pytest.mark.parametrize('command', [['validate', '--model'], ['benchmark', '--model'], ['export']])
def test_arguments_of_entry_points_are_pairs(command, capsys):
    with pytest.raises(SystemExit) as error:
        build_parser().parse_args([*command, 'resnet18', '--model-kwargs', 'x'])
    assert error.value.code == 2
    assert "--model-kwargs: expected KEY=VALUE, not 'x'" in capsys.readouterr().err
    args = build_parser().parse_args([*command, 'resnet18', '--model-kwargs', 'a=0.1', 'b=(3, 3)', 'c=text'])
    assert args.model_kwargs == {'a': 0.1, 'b': (3, 3), 'c': 'text'}
