"""What another process finds of a wrapper: a saved model, a backup, an export."""

import subprocess
import sys
import textwrap

import keras
import numpy as np

from tests.keras.contract.base import ContractBase, X, assert_weights_equal


class ProcessContract(ContractBase):
    """For wrappers around each other alone, since starting processes takes long."""

    def test_whole_wrapper_trains_on_in_a_fresh_process(self, tmp_path):
        model = self.compiled(
            optimizer=keras.optimizers.Adam(0.05), metrics=["accuracy"]
        )
        self.fit(model)
        path = str(tmp_path / "whole.keras")
        keras.saving.save_model(model, path)
        program = textwrap.dedent(
            f"""
            import keras, nsl.keras
            from {type(self).__module__} import {type(self).__name__} as Contract
            model = keras.saving.load_model({path!r})
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

    def test_backup_and_restore_of_a_killed_process(self, tmp_path):
        backup = str(tmp_path / "backup")
        program = textwrap.dedent(
            f"""
            import os
            import keras
            from {type(self).__module__} import {type(self).__name__} as Contract

            class Kill(keras.callbacks.Callback):
                def on_epoch_begin(self, epoch, logs=None):
                    if epoch == 2:
                        os._exit(9)

            contract = Contract()
            model = contract.compiled(optimizer=keras.optimizers.Adam(0.05))
            contract.fit(model, epochs=4, callbacks=[
                keras.callbacks.BackupAndRestore({backup!r}), Kill()
            ])
            """
        )
        assert subprocess.run([sys.executable, "-c", program]).returncode == 9
        resumed = self.compiled(optimizer=keras.optimizers.Adam(0.05))
        restore = keras.callbacks.BackupAndRestore(backup)
        history = self.fit(resumed, epochs=4, callbacks=[restore])
        assert history.epoch == [2, 3]
        undisturbed = self.compiled(optimizer=keras.optimizers.Adam(0.05))
        self.fit(undisturbed, epochs=4)
        assert_weights_equal(resumed.get_weights(), undisturbed.get_weights(), 1e-5)

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
