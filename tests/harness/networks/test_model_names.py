"""Expansion of model names: patterns, lists, and the nearest names for a mistake."""

import csv

import pytest

from eca_zoo.errors import InputError
from eca_zoo.harness.networks.model_names import expand_model_names
from eca_zoo.resources import packaged_path


def test_names_keep_their_order_and_are_not_repeated():
    assert expand_model_names(['resnet50', 'resnet18', 'resnet50']) == ['resnet50', 'resnet18']


def test_a_pattern_is_expanded_over_the_registry_in_natural_order():
    assert expand_model_names(['resnet1[08][a-z]']) == ['resnet10t', 'resnet18d']


def test_a_pattern_with_a_dot_matches_tags():
    assert expand_model_names(['resnet50.tv*_in1k']) == ['resnet50.tv2_in1k', 'resnet50.tv_in1k']


def test_zoo_means_the_six_published_networks():
    with packaged_path('reference/ecanet_imagenet.csv').open() as file:
        assert expand_model_names(['zoo']) == [row['model'] for row in csv.DictReader(file)]


def test_plain_means_their_counterparts_without_eca_layers():
    assert expand_model_names(['plain']) == [
        'resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152', 'mobilenetv2_100',
    ]  # fmt: skip


def test_a_text_file_lists_names_and_patterns(tmp_path):
    (tmp_path / 'models.txt').write_text('# baselines\nresnet50\n\nresnet1[08][a-z]\n')
    assert expand_model_names([str(tmp_path / 'models.txt')]) == ['resnet50', 'resnet10t', 'resnet18d']


def test_what_timm_loads_by_schema_is_passed_on(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    names = ['hf-hub:timm/resnet50.a1_in1k', f'local-dir:{tmp_path}']
    assert expand_model_names(names) == names


@pytest.mark.parametrize(
    ('pattern', 'message'),
    [
        ('resent50', "'resent50' is no model that timm knows; the nearest names are resnet50, resnet50t, resnet50s"),
        (
            'resnet50.tv_in',
            "'resnet50.tv_in' is no tag of resnet50 that timm knows; "
            'the nearest names are resnet50.tv_in1k, resnet50.tv2_in1k, resnet50.bt_in1k',
        ),
        ('zzzzzzzz', "'zzzzzzzz' is no model that timm knows; timm.list_models() lists what there is"),
        ('zz*', "no model matches the pattern 'zz*'; timm.list_models() lists what there is"),
        (
            'local-dir:/nowhere',
            '/nowhere: not a folder that timm can load: it has no config.json; eca-zoo convert writes one',
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(pattern, message):
    with pytest.raises(InputError) as error:
        expand_model_names([pattern])
    assert str(error.value) == message


def test_no_name_at_all_is_refused():
    with pytest.raises(InputError, match='no model is named'):
        expand_model_names([])
