"""What people may use: budgets, rates and fair shares, in memory. See docs/limits.md."""

from aimux.limits.configured import policy
from aimux.limits.leases import Lease, Limits, Refusal, Standing
from aimux.limits.rules import ANYBODY, Policy, Who
from aimux.limits.settlement import Settlement

__all__ = ["ANYBODY", "Lease", "Limits", "Policy", "Refusal", "Settlement", "Standing", "Who", "policy"]
