"""What every wrapper must do as a Keras model.

A wrapper's test file makes one subclass of `WrapperContract`, says how it wraps, and
gets all tests of this package.
"""

from tests.keras.contract.data import DataContract
from tests.keras.contract.inference import InferenceContract
from tests.keras.contract.losses import LossesContract
from tests.keras.contract.metrics import MetricsContract
from tests.keras.contract.modes import ModesContract
from tests.keras.contract.saving import SavingContract
from tests.keras.contract.state import StateContract
from tests.keras.contract.weights import WeightsContract


class WrapperContract(
    DataContract,
    InferenceContract,
    LossesContract,
    MetricsContract,
    ModesContract,
    SavingContract,
    StateContract,
    WeightsContract,
):
    """All that a wrapper must do."""


__all__ = ["WrapperContract"]
