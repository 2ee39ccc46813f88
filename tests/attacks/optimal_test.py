"""Every attack finds the worst perturbation of a linear model, in every norm."""

import numpy as np
import pytest
import tensorflow as tf

from nsl import attacks
from nsl.attacks.autopgd import _waits
from nsl.attacks.mifgsm import _State
from tests.attacks.linear import ORDER, Linear, inputs, largest_gain, lead

EPSILON = {"l1": 1.5, "l2": 0.6, "infinity": 0.2}

# What share of the optimum each reaches at least. MI-FGSM's steps sum up to epsilon,
# so that what bounds cut short is lost; under L1, those of PGD do not shrink, and those
# of Auto-PGD not below a tenth of epsilon. Under L2, Auto-PGD takes coordinates off
# their bounds in each step, for the sake of models that are not linear.
ATTACKS = {
    "fgsm": (attacks.FGSM, {}, {"l1": 1, "l2": 1, "infinity": 1}),
    "pgd": (
        attacks.PGD,
        {"steps": 100, "step_size": 0.2},
        {"l1": 0.95, "l2": 1, "infinity": 1},
    ),
    "mifgsm": (attacks.MIFGSM, {}, {"l1": 1, "l2": 0.9, "infinity": 1}),
    "autopgd": (attacks.AutoPGD, {}, {"l1": 0.93, "l2": 0.998, "infinity": 1}),
}


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("name", ATTACKS)
def test_reaches_the_optimum_within_ball_and_bounds(name, norm):
    kind, settings, shares = ATTACKS[name]
    model, x = Linear(), inputs()
    y = model.predict(x)
    targets = (y + 1) % 5
    attack = kind(norm=norm, objective=lead, **settings)
    epsilon = EPSILON[norm]
    found = attack(model, x, y, epsilon=epsilon, bounds=(0, 1), target=targets)
    moved = found.astype(np.float64) - x
    assert found.min() >= 0
    assert found.max() <= 1
    assert np.linalg.norm(moved, ORDER[norm], axis=1).max() <= epsilon * (1 + 1e-5)
    gradients = (model.weights[:, targets] - model.weights[:, y]).T
    best = [
        largest_gain(gradient, -row, 1 - row, epsilon, norm)
        for gradient, row in zip(gradients, x.astype(np.float64), strict=True)
    ]
    reached = np.sum(moved * gradients, axis=1) / best
    assert reached.min() > shares[norm] - 1e-4
    assert reached.max() < 1 + 1e-4


@pytest.mark.parametrize("norm", ORDER)
def test_auto_pgd_untargeted_fools_where_any_class_can_be_reached(norm):
    """An example falls if and only if the optimum for some class crosses over."""
    model, x = Linear(seed=3), inputs(count=40, seed=4)
    y, epsilon = model.predict(x), 0.4 * EPSILON[norm]
    logits = x.astype(np.float64) @ model.weights
    leads = np.full([40, 5], -np.inf)
    for i in range(40):
        for k in range(5):
            if k != y[i]:
                gradient = model.weights[:, k] - model.weights[:, y[i]]
                gain = largest_gain(gradient, -x[i], 1 - x[i], epsilon, norm)
                leads[i, k] = logits[i, k] - logits[i, y[i]] + gain
    worst = leads.max(axis=1)
    settings = {"norm": norm, "objective": "dlr", "target_classes": 4}

    def attacked(**more):
        attack = attacks.AutoPGD(**settings, **more)
        return attack(model, x, y, epsilon=epsilon, bounds=(0, 1))

    fallen = model.predict(attacked()) != y
    clear = np.abs(worst) > 0.02
    assert 0.2 < (worst > 0).mean() < 0.9
    assert clear.sum() >= 35
    np.testing.assert_array_equal(fallen[clear], (worst > 0)[clear])
    # It comes back from large radii: what falls within 3 epsilon alone stands.
    for early_stop in (False, True):
        found = attacked(large_radii=True, early_stop=early_stop)
        length = np.linalg.norm(found.astype(np.float64) - x, ORDER[norm], axis=1)
        assert length.max() <= epsilon * (1 + 1e-5)
        assert np.sum(fallen != (model.predict(found) != y)) <= 1


def test_auto_pgd_halves_its_steps_at_the_papers_checkpoints():
    waits = _waits(100)
    steps = [i for i, wait in enumerate(waits) if wait]
    assert steps == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sum(waits) == steps[-1]


@pytest.mark.parametrize("steps", [1, 2, 5, 100])
def test_auto_pgd_ends_within_epsilon(steps):
    attack = attacks.AutoPGD(steps=steps, large_radii=True, early_stop=True)
    schedule = attack._schedule()
    assert sum(attack.step_counts()) == len(schedule.factors) == steps
    large = [int(0.3 * steps)] * 2
    factors = np.repeat([3.0, 2.0, 1.0], [*large, steps - sum(large)])
    np.testing.assert_array_equal(schedule.factors, factors)
    assert not schedule.leaves[-1]


def test_momentum_goes_on_where_the_gradient_turns():
    """After steps along g and then -g / 2, momentum 1 still points along g."""
    attack, zero = attacks.MIFGSM(decay=1.0), tf.zeros([1, 2])
    state = _State.at(zero, momentum=zero)
    first, fields = attack.direction(state, tf.constant([[3.0, 1.0]]))
    np.testing.assert_allclose(first, [[0.75, 0.25]])
    state = state.next(zero, **fields)
    second, _ = attack.direction(state, tf.constant([[-1.0, 0.0]]))
    np.testing.assert_allclose(second, [[-0.25, 0.25]])
