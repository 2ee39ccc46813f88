"""Two logical CPU devices stand in for two accelerators."""

import tests.two_devices  # noqa: F401
