"""Routing: which location each line of an order comes from (policy `nearest`)."""

from state.tables import View
from streams.routing.kernel import reserve, route_order_kernel, route_orders_kernel
from streams.routing.lines import make_scratch
from streams.routing.scratch import Scratch

__all__ = ["Scratch", "View", "make_scratch", "reserve", "route_order_kernel", "route_orders_kernel"]
