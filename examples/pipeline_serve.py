"""Serves the model of examples/pipeline.py in a process that does not import nsl.

    python examples/pipeline_serve.py pipeline/seed-0

Predicts each line of test.csv, a sample of raw measurements, with the SavedModel and
with the .keras file, and compares the answers with those of the trained model.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


def largest_difference(folder: Path) -> float:
    """Compares the answers with the predictions of the trained model."""
    served = np.loadtxt(folder / "answers.csv", delimiter=",")
    largest = float(np.abs(served - np.load(folder / "predictions.npy")).max())
    if largest > 1e-5:
        raise RuntimeError(f"served and trained model differ by {largest}")
    return largest


def main() -> None:
    folder = Path(sys.argv[1])
    raw = np.loadtxt(folder / "test.csv", np.float32, delimiter=",")
    saved_model = tf.saved_model.load(str(folder / "saved_model"))
    served = saved_model.serve(raw).numpy()
    model = keras.models.load_model(folder / "model.keras")
    np.testing.assert_allclose(model.predict(raw, verbose=0), served, atol=1e-6)
    assert "nsl" not in sys.modules
    np.savetxt(folder / "answers.csv", served, delimiter=",")
    print(
        f"{len(served)} predictions; nsl was not imported; largest difference"
        f" {largest_difference(folder):.0e}"
    )


if __name__ == "__main__":
    main()
