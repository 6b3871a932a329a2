"""The order of the data and the shares of processes, as functions of (seed, epoch, index) and (seed, step)."""

import random

import numpy as np
import pytest
import torch

from eca_zoo.training.data.order import (
    Schedule,
    epoch_order,
    grouped_order,
    mixed,
    random_state_kept,
    seed_sample,
    seed_step,
)


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own():
    orders = [epoch_order(seed, epoch, 100).tolist() for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert epoch_order(1, 0, 100).tolist() == orders[0]


def test_grouped_images_are_of_one_kind_so_many_at_a_time_and_each_is_there_once():
    # In turn 4, 0, 3, 1, 2, 5 of the kinds 1, 1, 0, 0, 0, 1: pairs 4 0, 3 1, and 2 and 5 are left.
    found = grouped_order(torch.tensor([4, 0, 3, 1, 2, 5]), torch.tensor([1, 0, 0, 0, 1, 1]), 2)
    assert found.tolist() == [4, 0, 3, 1, 2, 5]
    found = grouped_order(torch.tensor([4, 3, 0, 2, 1, 5]), torch.tensor([1, 0, 0, 0, 1, 1]), 2)
    assert found.tolist() == [4, 0, 3, 2, 1, 5]
    kinds = (torch.arange(23) % 3 == 0).long()
    schedule = Schedule(count=23, batch_size=6, seed=1, kinds=kinds, group_size=2)
    orders = [schedule.order(epoch) for epoch in (0, 1)]
    assert orders[0].tolist() != orders[1].tolist()
    for order in orders:
        assert sorted(order.tolist()) == list(range(23))
        # Eight of one kind and fifteen of the other: eleven groups, and one image that has no other.
        assert all(len(set(pair)) == 1 for pair in kinds[order[:22]].view(-1, 2).tolist())
    assert kinds[orders[0][0:22:2]].unique_consecutive().numel() > 2


@pytest.mark.parametrize('parts', [1, 3])
@pytest.mark.parametrize('processes', [1, 2, 5])
def test_the_shares_of_a_step_are_the_batch_and_their_weights_add_up_to_one(processes, parts):
    schedule = Schedule(count=23, batch_size=10, seed=0, processes=processes, parts=parts)
    assert schedule.steps_per_epoch == 3
    assert [schedule.images_of(step) for step in range(6)] == [10, 10, 3, 10, 10, 3]
    order = epoch_order(0, 0, 23)
    for step in range(3):
        positions = schedule.positions(step, order)
        shares = [schedule.share(positions, process) for process in range(processes)]
        real = [part for share in shares for part, weight in zip(share.parts, share.weights, strict=True) if weight]
        assert [position for part in real for position in part] == positions
        assert sum(weight for share in shares for weight in share.weights) == pytest.approx(1, abs=1e-15)
        assert all(share.parts for share in shares)


def test_dropping_the_last_batch_leaves_whole_ones():
    schedule = Schedule(count=23, batch_size=10, seed=0, drop_last=True)
    assert [schedule.images_of(step) for step in range(schedule.steps_per_epoch)] == [10, 10]


def test_random_states_follow_from_their_numbers_alone_and_are_given_back():
    def drawn() -> tuple:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    before = drawn, torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with random_state_kept():
        seed_sample(1, 2, 3)
        first = drawn()
        seed_step(1, 2, 3, 0, torch.device('cpu'))
        assert drawn() != first
        seed_sample(1, 2, 3)
        assert drawn() == first
    assert torch.equal(torch.get_rng_state(), before[1])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[2:]
    assert len({mixed(1, 0, 1), mixed(1, 1, 0), mixed(0, 1, 1), mixed(1, 1), mixed(1)}) == 5
