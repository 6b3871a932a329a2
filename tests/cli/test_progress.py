"""What is said of long work where nobody sees a bar."""

import io
import logging
import sys

import pytest

from eca_zoo import progress
from eca_zoo.progress import ProgressBars


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, 'time', clock)
    return clock


def test_without_a_terminal_a_line_a_minute_has_rate_and_time_left(clock, caplog):
    caplog.set_level(logging.INFO)
    with ProgressBars() as bars:
        for clock.now, done in [(100, 10_000), (130, 13_000), (160, 16_000), (170, 17_000), (221, 22_100)]:
            bars.show('validation', done, 50_000, unit='img')
        bars.show('throughput', 0, 80, 'warmed up resnet18', unit='rounds')
        clock.now = 300.0
        bars.show('throughput', 8, 80, 'round 1 of 10', unit='rounds')
    assert caplog.messages == [
        'validation: 16,000 of 50,000 img (32 %), 100.0 img/s, 05:40 left',
        'validation: 22,100 of 50,000 img (44 %), 100.0 img/s, 04:39 left',
        'throughput: 8 of 80 rounds (10 %), 0.101 rounds/s, 11:51 left (round 1 of 10)',
    ]


def test_work_of_unknown_length_has_a_rate(clock, caplog):
    caplog.set_level(logging.INFO)
    bars = ProgressBars()
    bars.show('a stream', 0, 0, unit='img')
    clock.now += 60
    bars.show('a stream', 0, 0, unit='img')
    clock.now += 60
    bars.show('a stream', 6, 0, unit='img')
    assert caplog.messages == ['a stream: 0 img', 'a stream: 6 img, 0.050 img/s']


def test_on_a_terminal_there_is_a_bar_and_no_line(clock, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    terminal = Terminal()
    monkeypatch.setattr(sys, 'stderr', terminal)
    with ProgressBars(seconds=0) as bars:
        bars.show('validation', 5, 50, unit='img')
        assert 'validation:  10%' in terminal.getvalue()
    assert caplog.messages == []


def test_processes_beside_the_main_one_are_silent(clock, caplog):
    caplog.set_level(logging.INFO)
    ProgressBars(enabled=False, seconds=0).show('validation', 5, 50)
    assert caplog.messages == []
