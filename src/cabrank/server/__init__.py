"""The HTTP front: the lane for the hot POSTs, ASGI for everything else, one `Reception` behind both."""

from cabrank.server.mounting import asgi, lifespan

__all__ = ["asgi", "lifespan"]
