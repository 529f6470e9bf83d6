"""Gives orders from the terminal to the mesh that runs from a data folder."""

from typing import Any

from mesh import orders
from mesh.local.layout import Layout
from mesh.local.running import ready
from mesh.orders import Tell


async def give(layout: Layout, order: str, tell: Tell, **arguments: Any) -> Any:
    """
    Give an order to the mesh that runs from *layout*; returns its result.

    Raises:
        NotRunningError: None runs.
        OrderError: The order cannot be carried out.
    """
    ready(layout)
    by = f"{orders.this_user()} (terminal)"
    return await orders.give(layout.control, order, tell, by=by, **arguments)
