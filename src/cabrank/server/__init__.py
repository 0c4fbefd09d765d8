"""The HTTP front: the lane for the hot POSTs, ASGI for everything else, one `Reception` behind both."""

try:
    from cabrank.server.mounting import asgi, lifespan
except ModuleNotFoundError as error:
    package = (error.name or "cabrank").partition(".")[0]
    if package == "cabrank":
        raise
    raise ModuleNotFoundError(f"{package} is missing, and cabrank.server needs it: pip install 'cabrank[serve]'", name=error.name) from None

__all__ = ["asgi", "lifespan"]
