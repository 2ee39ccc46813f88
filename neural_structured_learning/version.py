"""The version, where programs of NSL 1.4 find it."""

from nsl import __version__ as __version__
