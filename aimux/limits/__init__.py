"""What people may use: budgets, rates and fair shares, in memory. See docs/limits.md."""

from aimux.limits.configured import policy
from aimux.limits.counters import Terms
from aimux.limits.fair_share import FairShare
from aimux.limits.leases import Limits, Refusal, Standing
from aimux.limits.rules import ANYBODY, Policy, Who
from aimux.limits.settlement import FairMeter, Settlement
from aimux.limits.sums import Lease

__all__ = [
    "ANYBODY",
    "FairMeter",
    "FairShare",
    "Lease",
    "Limits",
    "Policy",
    "Refusal",
    "Settlement",
    "Standing",
    "Terms",
    "Who",
    "policy",
]
