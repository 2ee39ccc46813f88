"""Attacks are values: their settings, and nothing that has been compiled."""

import copy
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nsl import attacks, configs
from nsl.attacks.fingerprint import fingerprint
from nsl.attacks.objectives import margin
from tests.attacks.linear import Linear, inputs

KINDS = [
    attacks.FGSM,
    attacks.PGD,
    attacks.MIFGSM,
    attacks.AutoPGD,
    attacks.FAB,
    attacks.Square,
    attacks.HopSkipJump,
]
SHORT = {
    attacks.FGSM: {},
    attacks.HopSkipJump: {"steps": 1, "samples": 4},
}


def _attack(kind: Any, **settings: Any) -> Any:
    return kind(norm="l2", **SHORT.get(kind, {"steps": 2}), **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_all_there_is(kind: Any) -> None:
    attack = _attack(kind)
    same = _attack(kind)
    assert attack == same
    assert hash(attack) == hash(same)
    assert attack != kind(norm="infinity", **SHORT.get(kind, {"steps": 2}))
    assert attack != kind(norm="l2", jit_compile=True, **SHORT.get(kind, {"steps": 2}))
    assert len({attack, same}) == 1
    with pytest.raises(AttributeError):
        attack.steps = 5


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_what_has_run_do_the_same(kind: Any) -> None:
    attack, model, x = _attack(kind), Linear(), inputs()
    before = pickle.dumps(attack)
    y = model.predict(x)
    found = attack(model, x, y, epsilon=0.4)
    assert pickle.dumps(attack) == before
    for other in (
        pickle.loads(before),
        copy.copy(attack),
        copy.deepcopy(attack),
        pickle.loads(pickle.dumps(attack)),
    ):
        assert other == attack
        assert repr(other) == repr(attack)
        np.testing.assert_array_equal(other(model, x, y, epsilon=0.4), found)


def test_kinds_are_told_apart() -> None:
    assert len({attacks.PGD(), attacks.MIFGSM(), attacks.AutoPGD()}) == 3
    assert attacks.PGD(steps=10) != attacks.MIFGSM(steps=10, random_start=True)
    assert attacks.PGD(objective="margin") != attacks.PGD(objective=margin)


def test_a_target_is_part_of_it() -> None:
    configs_ = [configs.AdvTargetConfig(method) for method in ("second", "least")]
    first, second = [attacks.PGD(target=config) for config in configs_]
    assert first != second
    for attack in (first, second):
        assert pickle.loads(pickle.dumps(attack)) == attack
    model, x = Linear(), inputs()
    y = model.predict(x)
    ranks = np.argsort(-model(x).numpy(), axis=1)
    for attack, rank in ((first, 1), (second, -1)):
        found = attack(model, x, y, epsilon=2.0)
        np.testing.assert_array_equal(model.predict(found), ranks[:, rank])


def test_one_attack_serves_several_models() -> None:
    attack, x = attacks.FGSM(), inputs()
    for _ in range(2):
        for seed in (0, 1):
            model = Linear(seed)
            y = model.predict(x)
            found = attack(model, x, y, epsilon=0.2)
            alone = attacks.FGSM()(Linear(seed), x, y, epsilon=0.2)
            np.testing.assert_array_equal(found, alone)


def test_equal_attacks_share_what_is_compiled() -> None:
    model, x = Linear(), inputs()
    attacks.PGD(steps=2)(model, x, epsilon=0.1)
    calls = model.calls
    attacks.PGD(steps=2)(model, x, epsilon=0.2)
    assert model.calls == calls
    attacks.PGD(steps=3)(model, x, epsilon=0.2)
    assert model.calls > calls


def test_an_attack_holds_no_model() -> None:
    attack, model = attacks.AutoPGD(steps=2), Linear()
    attack(model, inputs(), epsilon=0.1)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


class Mine(attacks.FixedRadius):
    """Goes to where the first coordinate is largest; no attrs class of its own."""

    def start(self, problem: attacks.Problem) -> attacks.State:
        return attacks.State.at(problem.none)

    def step(self, problem: attacks.Problem, state: attacks.State) -> attacks.State:
        ahead = state.perturbation + problem.radius * tf.one_hot(0, 12)
        return state.next(problem.project(ahead))


def test_an_attack_of_ones_own_is_a_value_too() -> None:
    attack, model, x = Mine(steps=2), Linear(), inputs()
    found = attack(model, x, epsilon=0.3)
    np.testing.assert_allclose(found[:, 0] - x[:, 0], 0.3, atol=1e-6)
    np.testing.assert_array_equal(found[:, 1:], x[:, 1:])
    assert pickle.loads(pickle.dumps(attack)) == attack


# Fingerprints, by which values are told apart.


def _adds(number: Any) -> Any:
    def add(x: Any) -> Any:
        return x + number

    return add


class Owner:
    def __init__(self, value: Any) -> None:
        self.value = value


def test_what_behaves_alike_has_one_fingerprint() -> None:
    array = np.arange(6.0)
    for make in (
        lambda: 3,
        lambda: "a",
        lambda: {"a": [1, (2.0, None)]},
        lambda: np.arange(6.0)[::2],
        lambda: _adds(3),
        lambda: _adds(np.ones(3)),
        lambda: Owner({"a": array}),
        lambda: attacks.PGD(steps=3),
        lambda: configs.AdvTargetConfig("second"),
        lambda: np.array(["a", None], object),
    ):
        assert fingerprint(make()) == fingerprint(make())


def test_what_behaves_otherwise_has_another() -> None:
    values = [
        1,
        2,
        "1",
        None,
        [1],
        [1, 2],
        {"a": 1},
        {"b": 1},
        np.arange(6.0),
        np.arange(6.0) + 1,
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0, dtype=np.float32),
        _adds(1),
        _adds(2),
        _adds(np.ones(3)),
        _adds(np.zeros(3)),
        lambda x: x,
        lambda x: -x,
        lambda x, k=1: x + k,
        lambda x, k=2: x + k,
        Owner(1),
        Owner(2),
        Owner([1]),
        attacks.PGD(steps=3),
        attacks.PGD(steps=4),
        attacks.PGD(steps=3, objective=margin),
        attacks.PGD(steps=3, target=configs.AdvTargetConfig("second")),
        attacks.PGD(steps=3, target=configs.AdvTargetConfig("least")),
    ]
    found = [fingerprint(value) for value in values]
    for i, one in enumerate(found):
        for j in range(i):
            assert one != found[j], (values[i], values[j])


def test_what_refers_to_itself_has_a_fingerprint() -> None:
    owner = Owner(None)
    owner.value = [owner]
    other = Owner(None)
    other.value = [other]
    assert fingerprint(owner) == fingerprint(other)
