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

    def test_whole_wrapper_trains_on_in_a_fresh_process(self, tmp_path):
        model = self.compiled(
            optimizer=keras.optimizers.Adam(0.05), metrics=["accuracy"]
        )
        self.fit(model)
        path = str(tmp_path / "whole.keras")
        keras.saving.save_model(model, path)
        program = textwrap.dedent(
            f"""
            import sys, keras, nsl
            assert "nsl.keras" not in sys.modules
            model = keras.saving.load_model({path!r})
            from {type(self).__module__} import {type(self).__name__} as Contract
            history = Contract().fit(model).history
            assert "accuracy" in history and Contract.term_metric in history
            model.save_weights({str(tmp_path / "on.weights.h5")!r})
            """
        )
        subprocess.run([sys.executable, "-c", program], check=True)
        self.fit(model)
        expected = model.get_weights()
        model.load_weights(tmp_path / "on.weights.h5")
        assert_weights_equal(model.get_weights(), expected, 1e-5)

    def test_export_serves_without_nsl(self, tmp_path):
        model = self.compiled()
        self.fit(model)
        model.export(tmp_path / "served", verbose=False)
        np.save(tmp_path / "x.npy", X)
        program = (
            "import sys, numpy as np, tensorflow as tf\n"
            f"served = tf.saved_model.load({str(tmp_path / 'served')!r})\n"
            f"x = np.load({str(tmp_path / 'x.npy')!r})\n"
            f"np.save({str(tmp_path / 'y.npy')!r}, served.serve(x))\n"
            "assert not any(m.split('.')[0] == 'nsl' for m in sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(X), rtol=1e-5)
