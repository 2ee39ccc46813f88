"""Tests of the settings of graph building."""

import pytest

from nsl import configs


def test_defaults():
    assert configs.GraphBuilderConfig() == configs.GraphBuilderConfig(
        "id", "embedding", 0.8, 0, 1, None
    )


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"similarity_threshold": 1.5}, "similarity_threshold must be at most 1"),
        ({"similarity_threshold": -1.5}, "similarity_threshold must be at least -1"),
        ({"similarity_threshold": float("nan")}, "must be a finite number"),
        ({"lsh_splits": -1}, "lsh_splits must be at least 0, received -1"),
        ({"lsh_splits": 2, "lsh_rounds": 0}, "at least 1 when lsh_splits is 2"),
        ({"id_feature_name": ""}, "id_feature_name must not be empty"),
    ],
)
def test_wrong_values(values, match):
    with pytest.raises(ValueError, match=match):
        configs.GraphBuilderConfig(**values)


def test_wrong_types():
    with pytest.raises(TypeError, match="random_seed must be an integer"):
        configs.GraphBuilderConfig(random_seed=0.5)
    with pytest.raises(TypeError, match="lsh_rounds must be an integer"):
        configs.GraphBuilderConfig(lsh_rounds=1.5)


def test_rounds_do_not_count_without_splits():
    assert configs.GraphBuilderConfig(lsh_rounds=0).lsh_rounds == 0
    assert configs.GraphBuilderConfig(similarity_threshold=-1, random_seed=3)
