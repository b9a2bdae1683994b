"""What runs at this moment."""

from __future__ import annotations

from pydantic import Field

from aimux.control.api.body import Body
from aimux.control.api.operations import Table
from aimux.control.api.parts import Parts  # noqa: TC001 - the table reads the annotations
from aimux.control.principal import Role

operation = Table()


class Running(Body):
    """A request under way."""

    id: str = Field(description="Its `x-request-id`.")
    user: str
    model: str = Field(description="As the client asked for it.")
    provider: str
    account: str = Field(description="Empty until one is chosen.")
    client: str = Field(description="The first word of its user agent.")
    seconds: float = Field(description="Since its head was in.")
    streaming: bool = Field(description="Its answer has begun.")
    node: str = Field(description="The host of the node that it runs at.")


class NodeSums(Body):
    """What a node does."""

    node: str = Field(description="Its host.")
    running: int = Field(description="Requests under way.")
    tokens_per_second: float
    requests_per_minute: float


class Live(Body):
    """At all nodes together."""

    nodes: list[NodeSums] = Field(
        description="First the one that answers, then those of the others that have something to do: as they told "
        "within the last seconds, and none while the database is away."
    )
    shared: bool = Field(description="Other nodes may share its database.")
    running: int = Field(description="Requests under way.")
    items: list[Running] = Field(
        description="Those under way, the longest first; where another node has more than some thirty, its longest."
    )
    tokens_per_second: float = Field(description="Output of the requests that ended in the last 30 s.")
    requests_per_minute: float = Field(description="That ended in the last 30 s.")


@operation("GET", "/live", "Show what runs now", role=Role.VIEWER)
async def show_live(parts: Parts) -> Live:
    """At all nodes that share the database; what the others report is up to a second old."""
    activity = parts.running.activity()
    nodes = [activity.own(), *activity.others()]
    items = [Running(**one._asdict(), node=node.node) for node in nodes for one in node.items]
    return Live(
        nodes=[
            NodeSums(
                node=node.node,
                running=node.running,
                tokens_per_second=node.tokens_per_second,
                requests_per_minute=node.requests_per_minute,
            )
            for node in nodes
        ],
        shared=parts.running.config().database.address is not None,
        running=sum(node.running for node in nodes),
        items=sorted(items, key=lambda one: -one.seconds),
        tokens_per_second=round(sum(node.tokens_per_second for node in nodes), 1),
        requests_per_minute=round(sum(node.requests_per_minute for node in nodes), 1),
    )
