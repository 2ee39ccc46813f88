"""What another process finds of a wrapper: a saved model, an export."""

import subprocess
import sys
import textwrap

import keras
import numpy as np

from tests.keras.contract.base import ContractBase, X, assert_weights_equal


class ProcessContract(ContractBase):
    """For wrappers around each other alone, since starting processes takes long.

    Killed processes: tests/keras/distribution.
    """

    def test_a_fresh_process_serves_the_export_and_trains_the_whole_on(self, tmp_path):
        model = self.compiled(
            optimizer=keras.optimizers.Adam(0.05), metrics=["accuracy"]
        )
        self.fit(model)
        model.export(tmp_path / "served", verbose=False)
        np.save(tmp_path / "x.npy", X)
        outputs = model(X)
        path = str(tmp_path / "whole.keras")
        keras.saving.save_model(model, path)
        # In one process, for its start takes longest: at first without nsl, then with
        # the package alone, which must register its wrappers.
        program = textwrap.dedent(
            f"""
            import sys
            import numpy as np
            import tensorflow as tf
            served = tf.saved_model.load({str(tmp_path / "served")!r})
            x = np.load({str(tmp_path / "x.npy")!r})
            np.save({str(tmp_path / "y.npy")!r}, served.serve(x))
            assert not any(m.split(".")[0] == "nsl" for m in sys.modules)
            import keras, nsl
            assert "nsl.keras" not in sys.modules
            model = keras.saving.load_model({path!r})
            from {type(self).__module__} import {type(self).__name__} as Contract
            history = Contract().fit(model).history
            assert "accuracy" in history and Contract.term_metric in history
            model.save_weights({str(tmp_path / "on.weights.h5")!r})
            """
        )
        subprocess.run([sys.executable, "-c", program], check=True)
        np.testing.assert_allclose(
            np.load(tmp_path / "y.npy"), outputs, rtol=1e-5, atol=1e-6
        )
        self.fit(model)
        expected = model.get_weights()
        model.load_weights(tmp_path / "on.weights.h5")
        assert_weights_equal(model.get_weights(), expected, 1e-5)
