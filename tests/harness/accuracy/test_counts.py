"""Counting: the same guesses as timm's, sums that do not depend on their order, and scikit-learn's averages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support
from timm.utils import accuracy

from eca_zoo.harness.accuracy.counts import (
    are_correct,
    count_correct,
    loss_units,
    precision_recall_f1,
    top_guesses,
    wilson_half_width,
)
from eca_zoo.harness.accuracy.tally import DeviceTally, Tally


def logits_and_target(seed: int, count: int, classes: int, digits: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator).round(decimals=digits)
    return logits, torch.randint(classes, (count,), generator=generator)


@settings(max_examples=100)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 70), classes=st.integers(1, 40), digits=st.integers(0, 6))
def test_counts_are_those_of_timm_ties_and_few_classes_included(seed, count, classes, digits):
    logits, target = logits_and_target(seed, count, classes, digits)
    percentages = accuracy(logits, target, topk=(1, 5))
    assert count_correct(logits, target) == tuple(round(float(value) * count / 100) for value in percentages)


def test_with_three_classes_every_image_is_among_the_first_five():
    logits, target = logits_and_target(0, 9, 3)
    assert count_correct(logits, target)[1] == 9


def test_an_image_with_several_right_classes_is_right_if_one_of_them_is_guessed():
    guesses = torch.tensor([[3, 1, 2], [3, 1, 2], [0, 1, 2]])
    labels = torch.tensor([[7, 3], [2, -1], [8, 9]])
    first, any_guess = are_correct(guesses, labels)
    assert first.tolist() == [True, False, False]
    assert any_guess.tolist() == [True, True, False]


def test_the_sum_of_losses_does_not_depend_on_the_order_of_the_images():
    logits, target = logits_and_target(1, 1000, 10)
    units = loss_units(logits, target)
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(2))
    assert int(units.sum()) == int(units[shuffled].sum())
    mean = torch.nn.functional.cross_entropy(logits.double(), target).item()
    assert int(units.sum()) * 2.0**-30 / 1000 == pytest.approx(mean, rel=1e-6)


def test_wilson_half_width_of_eight_in_ten_is_that_of_the_textbook():
    assert wilson_half_width(8, 10) == pytest.approx((94.3318 - 49.0162) / 2, abs=1e-3)


def test_wilson_interval_of_a_perfect_score_is_not_empty():
    assert wilson_half_width(50, 50) > 3


@pytest.mark.parametrize('average', ['micro', 'macro', 'weighted'])
def test_precision_recall_and_f1_are_those_of_scikit_learn(average):
    logits, target = logits_and_target(3, 200, 12)
    target[target == 5] = 6
    tally = DeviceTally(12, torch.device('cpu'))
    tally.add(logits, target, target, torch.arange(200))
    expected = precision_recall_fscore_support(
        target.numpy(), logits.argmax(1).numpy(), average=average, zero_division=0
    )[:3]
    ours = precision_recall_f1(tally.take().per_class.tolist(), average)
    assert ours == pytest.approx([100 * value for value in expected], abs=1e-9)


def test_tallies_of_two_halves_add_up_to_the_tally_of_all_and_survive_json():
    logits, target = logits_and_target(4, 100, 7)
    parts = []
    for rows in (slice(0, 37), slice(37, 100), slice(0, 100)):
        tally = DeviceTally(7, torch.device('cpu'))
        tally.add(logits[rows], target[rows], target[rows], torch.arange(100)[rows])
        parts.append(Tally.from_json(tally.take().to_json(), 7))
    both, whole = parts[0] + parts[1], parts[2]
    assert torch.equal(both.per_class, whole.per_class)
    assert both.loss == whole.loss
    assert (whole.top1, whole.top5) == count_correct(logits, target)
    assert whole.images == 100


def test_the_first_image_with_a_logit_that_is_no_number_is_remembered():
    logits, target = logits_and_target(5, 10, 7)
    tally = DeviceTally(7, torch.device('cpu'))
    tally.add(logits, target, target, torch.arange(10))
    assert tally.first_bad() is None
    logits[6, 2], logits[4, 1] = float('nan'), float('inf')
    tally.add(logits, target, target, torch.arange(100, 110))
    assert tally.first_bad() == 104


def test_counts_over_a_part_of_the_classes_stand_under_the_models_indices():
    classes = torch.tensor([10, 3, 7])
    logits = torch.tensor([[0.0, 1.0, 2.0], [5.0, 1.0, 2.0]])
    tally = DeviceTally(12, torch.device('cpu'))
    tally.add(logits, torch.tensor([2, 1]), torch.tensor([2, 1]), torch.arange(2), classes)
    rows = tally.take().per_class
    assert rows[7].tolist() == [1, 1, 1, 1]
    assert rows[3].tolist() == [1, 0, 1, 0]
    assert rows[10].tolist() == [0, 0, 0, 1]


def test_guesses_come_best_first():
    assert top_guesses(torch.tensor([[0.1, 3.0, 2.0]])).tolist() == [[1, 2, 0]]


@settings(max_examples=200)
@given(st.lists(st.floats(0, 2.0**21, width=32), min_size=1, max_size=40))
def test_losses_are_the_same_integers_in_float32_as_in_float64(losses):
    # Two classes whose logits differ by more than float32 holds of exp(-x) have that difference as their loss.
    logits = torch.tensor([[0.0, loss] for loss in losses])
    target = torch.zeros(len(losses), dtype=torch.int64)
    exact = torch.nn.functional.cross_entropy(logits, target, reduction='none').double().clamp(max=2.0**20)
    assert torch.equal(loss_units(logits, target), (exact * 2.0**30).round().long())
