"""A name is given once, and one that is unknown is answered with those there are."""

import pytest

from nsl.attacks.objectives import OBJECTIVES, margin
from nsl.keras import AdversarialObjective, GraphLoss
from nsl.lib.norms import Norm
from nsl.lib.registry import Registry


def first(x):
    return x


def second(x):
    return 2 * x


def test_a_name_is_taken_once():
    known = Registry("Config.choice", "choices")
    known.add("a", first)
    assert known["a"] is first
    with pytest.raises(ValueError, match=r"Config.choice 'a' is already .*first"):
        known.add("a", second)
    assert known["a"] is first
    known.add("a", first)


def test_the_same_lines_may_run_again():
    """As a cell of a notebook that defines an objective."""

    def define():
        def again(x):
            return x

        return again

    known = Registry("Config.choice", "choices")
    known.add("a", define())
    latest = define()
    known.add("a", latest)
    assert known["a"] is latest


def test_an_unknown_name_is_answered_with_those_there_are():
    known = Registry("Config.choice", "choices", "Write one.")
    known.add("a", first)
    with pytest.raises(ValueError, match=r"is 'b', but the choices are \['a'\]. Write"):
        known["b"]
    assert "a" in known
    assert "b" not in known


def test_no_registry_of_nsl_gives_a_name_away():
    with pytest.raises(ValueError, match=r"'trades' is already"):

        class Trades(AdversarialObjective, objective="trades"):
            def __call__(self, passes, config):
                return passes.labeled_loss()

    with pytest.raises(ValueError, match=r"'distance' is already"):

        class Distance(GraphLoss, objective="distance"):
            def __call__(self, outputs, config):
                return outputs.samples

    with pytest.raises(ValueError, match=r"'l2' is already"):

        class Other(type(Norm.of("l1")), norm_type="l2"):
            pass

    with pytest.raises(ValueError, match=r"'margin' is already"):
        OBJECTIVES.add("margin", first)
    assert OBJECTIVES["margin"] is margin
