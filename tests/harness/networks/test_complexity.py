"""Counts of parameters, multiply-adds and activations, against the published and the measured tables."""

import csv

import pytest
import timm
import torch

from eca_zoo.errors import RunError
from eca_zoo.harness.networks.complexity import _NoValues, complexity, complexity_of_spec, count_complexity
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.models import list_zoo
from eca_zoo.resources import packaged_path

ZOO = [record.name for record in list_zoo()]


def read_rows(name):
    with packaged_path(f'reference/{name}').open() as file:
        return {row['model']: row for row in csv.DictReader(file)}


@pytest.mark.parametrize('name', ZOO)
def test_counts_equal_the_measured_reference(name):
    row = read_rows('complexity_measured.csv')[name]
    counts = complexity(name)
    assert counts.input_size == (3, 224, 224)
    assert counts.params == int(row['params'])
    assert f'{counts.macs / 1e9:.4f}' == row['gmacs_conv_linear']
    assert f'{counts.macs_ptflops / 1e9:.4f}' == row['gmacs_ptflops']
    # The reference has 7.8430 for ECA-Net101, where the same rule gives 7.84307.
    assert counts.macs_fvcore / 1e9 == pytest.approx(float(row['gmacs_fvcore']), abs=1e-4)


@pytest.mark.parametrize('name', ZOO)
def test_figures_in_the_papers_units_match_the_published_table(name):
    row = read_rows('ecanet_imagenet.csv')[name]
    counts = complexity(name)
    # The page prints 57.41 for ECA-Net152; the paper, and the count, have 57.40.
    params = '57.40' if name == 'eca_resnet152' else row['params_m_published']
    assert f'{counts.params_paper:.2f}' == params
    assert counts.gflops_paper == pytest.approx(float(row['gflops_published']), rel=0.005)


@pytest.mark.parametrize(
    ('name', 'img_size', 'gmacs', 'macts'),
    [
        ('resnet50', 224, 4.11, 11.11),
        ('seresnet50', 224, 4.11, 11.13),
        ('mobilenetv2_100', 224, 0.31, 6.68),
        ('vit_base_patch16_224', 224, 17.58, 23.9),
        ('swin_tiny_patch4_window7_224', 224, 4.51, 17.06),
        ('mixer_b16_224', 224, 12.62, 14.53),
        ('nfnet_f0', 192, 7.21, 10.16),
        ('resnetv2_50x1_bit', 448, 16.62, 44.46),
        ('ghostnetv2_160', 224, 0.42, 7.23),
    ],
)
def test_counts_equal_those_in_timms_published_tables(name, img_size, gmacs, macts):
    counts = complexity(name, input_size=(3, img_size, img_size))
    assert round(counts.macs_fvcore / 1e9, 2) == gmacs
    assert round(counts.activations / 1e6, 2) == macts


@pytest.mark.parametrize(
    ('name', 'params', 'gmacs', 'macts'),
    [('repvgg_a0', 8.31, 1.36, 1.79), ('mobileone_s0', 2.08, 0.28, 3.79), ('resnet18', 11.69, 1.82, 2.48)],
)
def test_networks_whose_branches_are_folded_have_timms_published_counts(name, params, gmacs, macts):
    counts = complexity_of_spec(ModelSpec(name), 224, reparameterize=True)
    found = counts.params / 1e6, counts.macs_fvcore / 1e9, counts.activations / 1e6
    assert tuple(round(figure, 2) for figure in found) == (params, gmacs, macts)


def test_multiply_adds_of_a_plain_resnet50_are_those_of_its_convolutions_and_classifier():
    counts = complexity('resnet50', input_size=(3, 224, 224))
    assert (counts.params, counts.macs) == (25_557_032, 4_089_184_256)


def test_the_default_size_is_the_one_a_model_is_evaluated_at():
    assert complexity('resnet50').input_size == (3, 288, 288)


def test_a_network_of_four_billion_parameters_needs_no_memory_for_them():
    assert complexity('eva02_enormous_patch14_clip_224').params == 4_350_556_928


def test_small_images_are_counted_for_every_network():
    assert complexity('eca_mobilenetv2', input_size=(3, 32, 32)).macs > 0


def test_arguments_of_the_entry_point_change_the_counts():
    assert complexity('eca_resnet18', model_kwargs={'num_classes': 10}).params == 11_689_556 - 990 * 513


def test_a_given_model_is_left_as_it_was():
    model = timm.create_model('test_eca_resnet').train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    counts = count_complexity(model, (3, 64, 64), 'mine')
    assert counts.model == 'mine'
    assert counts.macs > 0
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_values_are_left_out_on_the_meta_device_alone():
    with torch.device('meta'), _NoValues():
        assert torch.full((2,), 9.0, device='cpu').sqrt_().tolist() == [3, 3]
        weight = torch.empty(2, 3)
        assert weight.normal_() is weight
        assert weight.t_().shape == (3, 2)


def test_a_network_that_cannot_be_built_is_named_with_the_reason():
    with pytest.raises(RunError, match=r'^eca_resnet18: its complexity cannot be counted: .*4 odd, positive'):
        complexity('eca_resnet18', model_kwargs={'kernel_sizes': (2,)})
