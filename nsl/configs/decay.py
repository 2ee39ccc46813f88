"""Settings of values that decay during training."""

import attrs

from nsl.configs import fields
from nsl.configs.choice import Choice


class DecayType(Choice):
    """The formula of a decay."""

    EXPONENTIAL_DECAY = "exponential_decay"
    INVERSE_TIME_DECAY = "inverse_time_decay"
    NATURAL_EXP_DECAY = "natural_exp_decay"


@attrs.define
class DecayConfig:
    """How a value decays.

    Attributes:
      decay_steps: The number of steps after which `decay_rate` has been applied once;
        greater than 0.
      decay_rate: The rate of decay.
      min_value: The smallest value.
      decay_type: The formula, a `DecayType` or its value; see
        `nsl.lib.decay_over_time`.
    """

    decay_steps: float = attrs.field(validator=fields.number(0, exclusive=True))
    decay_rate: float = attrs.field(default=0.96, validator=fields.number())
    min_value: float = attrs.field(default=0.0, validator=fields.number())
    decay_type: DecayType = attrs.field(
        default=DecayType.EXPONENTIAL_DECAY, converter=DecayType
    )
