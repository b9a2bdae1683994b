"""Lists of what a vendor keeps for an account: each user gets their own things, and nobody else's.

All of the vendor's pages are read from the first one, on every account that has something of the user's: a page with
nothing of theirs would make a client stop paging.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from aimux.front.answer import Answer
from aimux.gateway.relayed import as_headers, head_lines
from aimux.gateway.whole_answers import read_beside, whole_answer
from aimux.plugin.codings import DecodeError, decode
from aimux.plugin.errors import ErrorKind, GatewayError
from aimux.plugin.meters import StoredAnswer
from aimux.plugin.reading import media_type
from aimux.plugin.stored import is_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aimux.gateway.call import Attempt, Call
    from aimux.gateway.cors import Cors
    from aimux.gateway.deposits import Deposits, Key
    from aimux.plugin.stored import StoredPage

MOST_PAGES = 50
_OF_THE_WHOLE = ("etag", "last-modified", "content-range", "accept-ranges")
"""Headers of an answer that reveal something about what is left out."""


class OwnLists:
    """The first request is sent as the client wrote it, and what turns out not to be a list passes as it came.

    `send` asks an upstream, `look_up` loads what the database has about some ids.
    """

    def __init__(
        self,
        deposits: Deposits,
        send: Callable[[Call], Awaitable[Attempt]],
        look_up: Callable[[Iterable[Key]], Awaitable[None]],
    ) -> None:
        self._deposits = deposits
        self._send = send
        self._look_up = look_up
        self._pages = 0

    async def gather(self, call: Call, cors: Cors) -> Answer | Attempt:
        """The user's own list; or an attempt that is to be relayed as it is. Raises GatewayError if neither is
        possible."""
        provider, items = call.admitted.route.provider, []
        if provider.lists(call.head) == "refused":
            message = "aimux can't tell whose these are, and lists none of them. Ask for what is yours by its id."
            raise GatewayError(ErrorKind.FORBIDDEN, message, retry=False)
        for account in self._accounts(call):
            target: str | None = provider.first_page(call.head)
            while target is not None:
                attempt = await self._send(_asking(call, target, account))
                try:
                    read = await self._page(call, attempt, target)
                    if read is None:
                        return attempt
                    page, answer = read
                    items += await self._own(call, attempt, page)
                except BaseException:
                    attempt.end()
                    raise
                attempt.end()  # all of it is here
                target = page.more
        body = provider.part_of_list(call.head, answer, items)
        if (addresses := provider.own_addresses(call.head)) is not None:
            body = addresses.sub(b"", body)
        headers = as_headers(head_lines(call, attempt, None, cors))
        return Answer(200, {name: value for name, value in headers.items() if name not in _OF_THE_WHOLE}, body)

    def _accounts(self, call: Call) -> list[str | None]:
        """Accounts that have something of the user's; None: any."""
        if call.selection.pinned is not None:
            return [call.selection.pinned]
        accounts = call.targets[0].route.accounts.accounts
        owned = self._deposits.owned(call.admitted.caller.name, call.targets[0].route.provider.instance)
        return [name for name in owned if name in accounts] or [None]

    async def _page(self, call: Call, attempt: Attempt, target: str) -> tuple[StoredPage, bytes] | None:
        """None: the answer is not a list. Raises GatewayError."""
        status, provider = attempt.head.status, attempt.route.provider
        json = media_type(attempt.head.get("content-type")) == "application/json"
        if status >= 400 or status in {204, 304} or (status == 200 and not json):
            return None
        raw = await whole_answer(attempt) if status == 200 else None
        if raw is None:
            raise GatewayError(ErrorKind.BAD_GATEWAY, f"{provider.instance} gave a list that can't be read as a whole.")
        self._pages += 1

        def read() -> tuple[StoredPage, bytes] | None:
            answer = decode(raw, attempt.head.coding)
            page = provider.read_page(target, answer)
            return (page, answer) if page is not None else None

        try:
            page = await read_beside(call, len(raw), read)
        except DecodeError as error:
            message = f"{provider.instance} gave a list that can't be decoded: {error}."
            raise GatewayError(ErrorKind.BAD_GATEWAY, message) from None
        if page is not None and page[0].more is not None and self._pages >= MOST_PAGES:
            message = "There is more in this list than aimux looks through. Ask for what is yours by its id."
            raise GatewayError(ErrorKind.FORBIDDEN, message, retry=False)
        return page

    async def _own(self, call: Call, attempt: Attempt, page: StoredPage) -> list[Any]:
        """The items that are the user's, and those that nobody stored (such as the vendor's own)."""
        instance, user = attempt.account.provider, call.admitted.caller.name
        meter = attempt.route.provider.meter(call.head, 200, attempt.head.headers)
        kept = meter if isinstance(meter, StoredAnswer) else None
        makers = {
            item["id"]: kept.makers(item) if kept is not None else ()
            for item in page.items
            if isinstance(item, dict) and isinstance(item.get("id"), str)
        }
        await self._look_up(self._deposits.unknown([*makers, *chain.from_iterable(makers.values())], call.targets))
        own = []
        for item in page.items:
            one = item.get("id") if isinstance(item, dict) else None
            place = self._deposits.find(instance, [one]) if isinstance(one, str) else None
            if place is not None and place.belongs_to_another(user):
                continue  # whatever it looks like
            if isinstance(one, str) and is_id(one):
                if place is None or place.owner is None:
                    place = self._deposits.find(instance, makers[one])
                if place is None or place.owner != user:
                    continue
                if kept is not None:  # what a batch has made, say
                    kept.read(item)
                    self._deposits.keep(instance, attempt.account.name, kept.stored, user)
                    self._deposits.count(instance, kept.over, call.record.path)
            own.append(item)
        return own


def _asking(call: Call, target: str, account: str | None) -> Call:
    head = call.head._replace(target=target)
    admitted = replace(call.admitted, head=head, sent=None)
    return call.again(admitted, replace(call.selection, pinned=account))
