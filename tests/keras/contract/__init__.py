"""What every wrapper must do as a Keras model.

A wrapper's test file makes one subclass of `WrapperContract`, says how it wraps, and
gets all tests of this package but those of `ProcessContract`.
"""

from tests.keras.contract.data import DataContract
from tests.keras.contract.inference import InferenceContract
from tests.keras.contract.losses import LossesContract
from tests.keras.contract.metrics import MetricsContract
from tests.keras.contract.models import ModelsContract
from tests.keras.contract.modes import ModesContract
from tests.keras.contract.processes import ProcessContract
from tests.keras.contract.saving import SavingContract
from tests.keras.contract.state import StateContract
from tests.keras.contract.weights import TermWeightsContract, WeightsContract


class StepContract(ModesContract, WeightsContract):
    """What depends on the train step: other objectives of a tested wrapper run it."""


class WrapperContract(
    StepContract,
    DataContract,
    InferenceContract,
    LossesContract,
    MetricsContract,
    ModelsContract,
    SavingContract,
    StateContract,
):
    """All that a wrapper must do within a process."""


__all__ = [
    "ProcessContract",
    "StateContract",
    "StepContract",
    "TermWeightsContract",
    "WrapperContract",
]
