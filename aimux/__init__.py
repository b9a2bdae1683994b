"""aimux: one door to a team's AI accounts."""

from importlib.metadata import version

DISTRIBUTION = "aimux"
"""Under which name it is installed."""
__version__ = version(DISTRIBUTION)
