"""Flow-control windows and their growth."""

from __future__ import annotations

from mobysession.testing.windows import BdpEstimator, Window


def test_a_quarter_is_kept_back():
    """What is owed is given back once it is a quarter of the limit, all of it."""
    window = Window(100)
    assert [window.take(10), window.take(14), window.take(1), window.take(24), window.take(2)] == [0, 0, 25, 0, 26]


def test_everything_owed_can_be_given_back_at_once():
    """A probe takes all that is owed along."""
    window = Window(100)
    window.take(7)
    assert (window.reset(), window.reset()) == (7, 0)


def test_the_limit_doubles_what_nearly_filled_it():
    """Two thirds of the estimate, arriving during a probe, make the limit twice what arrived; less changes nothing."""
    estimator = BdpEstimator()
    assert estimator.add(30_000, 0.0)
    assert not estimator.add(30_000, 0.5)
    assert estimator.measured(1.0) == 120_000
    assert estimator.add(1_000, 2.0)
    assert estimator.measured(3.0) is None


def test_there_is_a_largest_limit():
    """The estimate stops at 16 MiB, and probing with it."""
    estimator = BdpEstimator()
    limit, now = 65_535, 0.0
    while estimator.add(limit, now):
        now += 1
        limit = estimator.measured(now) or limit
        assert now < 100
    assert limit == 16 * 1024 * 1024
