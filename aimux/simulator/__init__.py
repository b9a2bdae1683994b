"""Faithful fake upstreams with fault scenarios, for demo, tests and bench: Anthropic, OpenAI, ChatGPT, their OAuth."""

from aimux.simulator.accounts import Account, Window
from aimux.simulator.demo import DemoFiles, credential_file, demo_files, provider_settings
from aimux.simulator.journal import Received
from aimux.simulator.scenarios import Scenario, Script, UnknownScenario, parse
from aimux.simulator.server import Simulator

__all__ = [
    "Account",
    "DemoFiles",
    "Received",
    "Scenario",
    "Script",
    "Simulator",
    "UnknownScenario",
    "Window",
    "credential_file",
    "demo_files",
    "parse",
    "provider_settings",
]
