"""Seeds of the replicas."""

import keras
import tensorflow as tf

from nsl.keras.replicas import replica_seed


def drawn(strategy: tf.distribute.Strategy, jit_compile: bool) -> list[list[int]]:
    """Two seeds of each replica."""
    with strategy.scope():
        generator = keras.random.SeedGenerator(3)

    @tf.function
    def run() -> object:
        compiled = tf.function(lambda: replica_seed(generator), jit_compile=jit_compile)
        return strategy.run(lambda: compiled())

    return [
        seed.numpy().tolist()
        for _ in range(2)
        for seed in strategy.experimental_local_results(run())
    ]


def test_each_replica_has_its_own() -> None:
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    seeds = drawn(two, jit_compile=False)
    assert len({tuple(seed) for seed in seeds}) == 4
    assert seeds == drawn(two, jit_compile=False)


def test_one_replica_has_that_of_the_generator() -> None:
    one = tf.distribute.get_strategy()
    generator = keras.random.SeedGenerator(3)
    expected = [generator.next().numpy().tolist() for _ in range(2)]
    assert drawn(one, jit_compile=False) == expected == drawn(one, jit_compile=True)
