"""Log lines: the program's own through `logging`, one a request through AccessLog, both to one descriptor."""

from aimux.logs.access import AccessLog
from aimux.logs.host import HostLogs
from aimux.logs.setup import LogFormat, Logs

__all__ = ["AccessLog", "HostLogs", "LogFormat", "Logs"]
