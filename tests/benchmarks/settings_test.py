"""benchmarks/settings.py: what the settings of examples are chosen with."""

import numpy as np
import settings


def test_held_out_reviews_are_no_training_reviews() -> None:
    rest, held_out = settings.hold_out(([str(i) for i in range(50)], np.arange(50)))
    assert len(held_out[0]) == 10
    assert sorted([*rest[1], *held_out[1]]) == list(range(50))
    assert [int(text) for text in held_out[0]] == held_out[1].tolist()
