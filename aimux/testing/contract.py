"""The contract: see `ProviderContract`."""

from aimux.testing.answers import AnswerContract
from aimux.testing.credentials import CredentialContract
from aimux.testing.own_limits import OwnLimitContract
from aimux.testing.requests import RequestContract


class ProviderContract(CredentialContract, RequestContract, AnswerContract, OwnLimitContract):
    """Subclass it as `Test…`, set `provider` and the samples (see `aimux.testing.base.Samples`), and run pytest."""
