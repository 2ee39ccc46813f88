"""Tests of enumerations."""

import copy
import pickle

import pytest

from nsl import configs

MEMBERS = {
    configs.NormType: ["l1", "l2", "infinity"],
    configs.AdvTargetType: ["second", "least", "random", "ground_truth"],
    configs.TransformType: ["softmax", "none"],
    configs.DistanceType: [
        "l1",
        "l2",
        "cosine",
        "jensen_shannon_divergence",
        "kl_divergence",
    ],
    configs.DecayType: [
        "exponential_decay",
        "inverse_time_decay",
        "natural_exp_decay",
    ],
    configs.IntegrationType: ["additive", "multiplicative", "tucker_decomp"],
}


@pytest.mark.parametrize("kind", MEMBERS)
def test_members(kind):
    assert [member.value for member in kind.all()] == MEMBERS[kind]
    for member in kind:
        assert kind(member) is kind(member.value) is member
        assert pickle.loads(pickle.dumps(member)) is member
        assert copy.deepcopy(member) is member


@pytest.mark.parametrize("kind", MEMBERS)
@pytest.mark.parametrize("value", ["nothing", None, 1])
def test_anything_else_lists_what_is_allowed(kind, value):
    with pytest.raises(ValueError, match=f"is not a valid {kind.__name__}") as error:
        kind(value)
    for allowed in MEMBERS[kind]:
        assert repr(allowed) in str(error.value)


def test_member_of_another_enumeration():
    with pytest.raises(ValueError, match="not a valid DistanceType"):
        configs.DistanceType(configs.NormType.L1)
