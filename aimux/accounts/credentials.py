"""Calls of a provider's code on a credential file. Whatever that raises, no secret is left in the message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aimux.plugin.errors import CredentialError, RefreshError, RefreshUnavailable
from aimux.plugin.http import HttpUnavailable
from aimux.redaction import mask_error

if TYPE_CHECKING:
    from aimux.plugin.http import Http
    from aimux.plugin.provider import Provider
    from aimux.plugin.types import Credential


def parse_credential(provider: Provider, raw: bytes) -> Credential:
    """Raises CredentialError."""
    try:
        return provider.parse_credential(raw)
    except CredentialError as error:
        mask_error(error, raw)
        raise
    except Exception as error:
        raise CredentialError(f"can't be read: its provider fails ({type(error).__name__})") from None


async def renew_credential(provider: Provider, raw: bytes, http: Http) -> bytes:
    """The file renewed. Raises RefreshError."""
    try:
        return await provider.refresh(raw, http)
    except RefreshError as error:
        mask_error(error, raw)
        raise
    except HttpUnavailable as error:
        raise RefreshUnavailable(str(error)) from None
    except Exception as error:
        raise RefreshUnavailable(f"the provider's renewal broke ({type(error).__name__})") from None
