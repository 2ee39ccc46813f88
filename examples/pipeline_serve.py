"""Serves the models exported by examples/pipeline.py, without importing nsl.

    python examples/pipeline_serve.py pipeline/seed-0 new_samples.csv answers.csv

Each line of the input is one sample of raw measurements. The predictions come from the
SavedModel, and are compared with those of the .keras file.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


def main() -> None:
    folder, samples, answers = map(Path, sys.argv[1:])
    raw = np.loadtxt(samples, np.float32, delimiter=",")
    saved_model = tf.saved_model.load(str(folder / "saved_model"))
    served = saved_model.serve(raw).numpy()
    model = keras.models.load_model(folder / "model.keras")
    np.testing.assert_allclose(model.predict(raw, verbose=0), served, atol=1e-6)
    assert "nsl" not in sys.modules
    np.savetxt(answers, served, delimiter=",")
    print(f"{len(served)} predictions; nsl was not imported")


if __name__ == "__main__":
    main()
