"""What an administrator wants to know without looking: told once for each event, to webhooks, mail and chats."""

from aimux.notices.notice import Notice
from aimux.notices.teller import Teller
from aimux.notices.watch import Watch

__all__ = ["Notice", "Teller", "Watch"]
