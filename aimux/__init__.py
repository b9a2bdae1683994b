"""aimux: one door to a team's AI accounts."""

from importlib.metadata import version

__version__ = version("aimux")
