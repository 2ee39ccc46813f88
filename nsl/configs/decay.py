"""Settings of a value that decays over the steps of training."""

import attrs

from nsl.configs import fields
from nsl.configs.choice import Choice


class DecayType(Choice):
    """The curve of a decay."""

    EXPONENTIAL_DECAY = "exponential_decay"
    INVERSE_TIME_DECAY = "inverse_time_decay"
    NATURAL_EXP_DECAY = "natural_exp_decay"


@attrs.define
class DecayConfig:
    """How a value decays.

    Attributes:
      decay_steps: The number of steps over which `decay_rate` is applied once; more
        than 0.
      decay_rate: The rate of decay.
      min_value: The value never falls below this.
      decay_type: The curve, a `DecayType` or its value.
    """

    decay_steps: float = attrs.field(validator=fields.number(0, exclusive=True))
    decay_rate: float = attrs.field(default=0.96, validator=fields.number())
    min_value: float = attrs.field(default=0.0, validator=fields.number())
    decay_type: DecayType = attrs.field(
        default=DecayType.EXPONENTIAL_DECAY, converter=DecayType
    )
