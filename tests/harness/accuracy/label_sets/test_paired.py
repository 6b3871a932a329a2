import math

import numpy as np
import pytest

from eca_zoo.harness.accuracy.label_sets.paired import PairedCounts


def test_the_p_value_is_that_of_mcnemars_exact_test_by_hand():
    # 2 * (C(5,0) + C(5,1)) / 2^5
    assert PairedCounts(100, gained=4, lost=1).p_value() == 12 / 32
    assert PairedCounts(100, gained=0, lost=3).p_value() == 2 / 8
    assert PairedCounts(10, gained=2, lost=2).p_value() == 1.0
    assert PairedCounts(10, gained=0, lost=0).p_value() == 1.0
    assert PairedCounts(0, gained=0, lost=0).p_value() is None


@pytest.mark.parametrize(('gained', 'lost'), [(0, 1), (7, 2), (40, 61), (812, 700), (12_000, 11_500)])
def test_the_p_value_is_that_of_the_binomial_test(gained, lost):
    stats = pytest.importorskip('scipy.stats')
    expected = stats.binomtest(gained, gained + lost).pvalue
    assert PairedCounts(50_000, gained, lost).p_value() == pytest.approx(expected, rel=1e-9)


def test_the_interval_without_any_difference_is_the_score_equation_by_hand():
    # n d / (1 - d) = z^2
    z2 = 1.959963984540054**2
    bound = 100 * z2 / (100 + z2)
    assert PairedCounts(100, gained=0, lost=0).interval95() == pytest.approx((-bound, bound), abs=1e-9)
    assert PairedCounts(0, gained=0, lost=0).interval95() is None


def test_the_interval_of_many_images_is_that_of_the_normal_approximation():
    counts = PairedCounts(50_000, gained=612, lost=540)
    half_width = 1.959963984540054 * math.sqrt(612 + 540 - (612 - 540) ** 2 / 50_000) / 500
    low, high = counts.interval95()
    assert low == pytest.approx(counts.difference - half_width, abs=1e-3)
    assert high == pytest.approx(counts.difference + half_width, abs=1e-3)


@pytest.mark.parametrize(('gained', 'lost'), [(3, 9), (0, 0), (12, 0), (0, 100), (50, 50)])
def test_the_interval_turns_its_sign_with_the_two_models(gained, lost):
    low, high = PairedCounts(100, gained, lost).interval95()
    swapped = PairedCounts(100, lost, gained).interval95()
    assert (-high, -low) == pytest.approx(swapped, abs=1e-9)
    assert -100 <= low <= high <= 100


def test_a_difference_is_significant_where_its_interval_leaves_out_zero():
    for gained in range(20, 60):
        counts = PairedCounts(1000, gained, lost=40)
        low, high = counts.interval95()
        score = (gained - 40) / math.sqrt(gained + 40)
        assert (low > 0 or high < 0) == (abs(score) > 1.959963984540054)


@pytest.mark.parametrize(('images', 'gained', 'lost'), [(2000, 0.05, 0.05), (5000, 0.06, 0.04), (300, 0.10, 0.07)])
def test_the_interval_holds_the_true_difference_in_95_of_100_draws(images, gained, lost):
    draws = np.random.default_rng(0).multinomial(images, [gained, lost, 1 - gained - lost], size=10_000)
    intervals = {pair: PairedCounts(images, *pair).interval95() for pair in {(int(b), int(c)) for b, c, _ in draws}}
    true = 100 * (gained - lost)
    held = sum(intervals[int(b), int(c)][0] <= true <= intervals[int(b), int(c)][1] for b, c, _ in draws)
    assert 94.0 <= held / 100 <= 96.0


def test_counts_that_no_images_give_are_refused():
    with pytest.raises(ValueError, match='7 gained and 5 lost are no counts of 10 images'):
        PairedCounts(10, gained=7, lost=5)
