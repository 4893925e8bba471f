"""The time left: from the first report on, by what was expected and by what is seen, and every stage counts."""

import pytest
import torch

from engine.store import progress as module
from engine.store.journal import read_journal
from engine.store.progress import Parts, Piece, Progress, Schedule


class Clock:
    """Stands in for the time, so that no test depends on the machine's."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def reports():
    return []


def listening(tmp_path, seconds, reports):
    return Progress(tmp_path, seconds, lambda *report: reports.append(report))


def test_the_time_left_is_known_from_the_first_report_on(tmp_path, clock, reports):
    progress = listening(tmp_path, {"training": 300.0, "scores": 100.0}, reports)
    progress.stage("training")
    assert reports == [("training", 0.0, 400.0)]
    clock.now += 30
    progress.step(0.1, 1, "seed 0, epoch 1 of 10")
    assert reports[-1] == ("training seed 0, epoch 1 of 10", pytest.approx(30 / 400), pytest.approx(370))


def test_what_is_seen_of_a_stage_outweighs_what_was_expected(clock):
    schedule = Schedule({"training": 100.0})
    schedule.enter("training")
    clock.now += 10  # after 10 s both count the same: (100 s + 10 s / 0.02) / 2 = 300 s, of which 98 % are left
    assert schedule.left(0.02) == (10, pytest.approx(294))
    clock.now += 990  # 1,000 s for a half: 1 % of 100 s and 99 % of 2,000 s
    assert schedule.left(0.5)[1] == pytest.approx((0.01 * 100 + 0.99 * 2000) / 2, rel=0.01)


def test_a_finished_stage_counts_with_what_it_took(tmp_path, clock, reports):
    progress = listening(tmp_path, {"map": 10.0, "scores": 100.0}, reports)
    progress.stage("map")
    clock.now += 60
    progress.stage("scores")
    assert reports[-1] == ("scores", pytest.approx(60 / 160), 100.0)


def test_a_long_step_is_reported_while_it_lasts(tmp_path, clock, reports):
    progress = listening(tmp_path, {"scores": 10.0}, reports)
    progress.stage("scores")
    progress.step(0.5, 1, "tracin_self")
    clock.now += 100
    progress.heartbeat()
    # 100 s for a half: what was expected, 10 s, counts a hundredth
    assert reports[-1][0] == "scores tracin_self" and reports[-1][2] == pytest.approx(100, rel=0.02)
    events = [event for event in read_journal(tmp_path) if event["event"] == "progress"]
    assert events[-1]["seconds_left"] == reports[-1][2] and events[-1]["stage"] == "scores tracin_self"


def test_parts_share_out_a_stage_by_what_they_take(tmp_path, clock, reports):
    progress = listening(tmp_path, {"training": 20.0, "scores": 60.0}, reports)
    progress.stage("training")
    clock.now += 20
    progress.stage("scores")
    parts = Parts(progress, {"dynamics": 10.0, "gradient_norm": 50.0})
    parts.enter("dynamics")
    clock.now += 30
    parts.step(1, 1)
    assert reports[-1][2] == pytest.approx(50)
    clock.now += 0.5
    parts.enter("gradient_norm")
    assert reports[-1] == ("scores gradient_norm", pytest.approx(50.5 / 100.5), 50.0)
    clock.now += 50
    parts.step(0.5, 1, "seed 0")
    assert reports[-1][0] == "scores gradient_norm seed 0"
    assert 40 < reports[-1][2] < 50  # 50 s for a half, where 25 s were expected


def test_what_an_earlier_attempt_has_done_says_nothing_of_the_speed(clock):
    schedule = Schedule({"training": 0.0})
    schedule.enter("training")
    schedule.skip(0.5)
    clock.now += 10
    spent, left = schedule.left(0.6)  # 10 s for a tenth
    assert left == pytest.approx(40) and spent == pytest.approx(10 + 50)


def test_a_stage_of_unknown_length_says_nothing_before_it_is_seen(tmp_path, clock, reports):
    progress = listening(tmp_path, {}, reports)
    progress.stage("psi")
    assert reports[-1] == ("psi", 0.0, None)
    clock.now += 5
    progress.step(0.25, 1)
    assert reports[-1] == ("psi", 0.25, 15.0)


def test_the_fraction_never_goes_back(tmp_path, clock, reports):
    progress = listening(tmp_path, {"a": 1.0, "b": 1.0}, reports)
    for stage in ("a", "b"):
        progress.stage(stage)
        for i in range(20):
            clock.now += float(torch.rand(1, generator=torch.Generator().manual_seed(i)))
            progress.step(i / 20, 1)
    fractions = [fraction for _, fraction, _ in reports]
    assert fractions == sorted(fractions) and fractions[-1] <= 1


def test_pieces_follow_each_other(tmp_path, clock, reports):
    progress = listening(tmp_path, {}, reports)
    progress.stage("scores")
    clock.now += 1
    Piece(progress, 1, 4).step(1, 2)
    assert reports[-1][1] == pytest.approx(1.5 / 4)
