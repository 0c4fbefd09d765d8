"""The HTTP front: the lane for the hot POSTs, ASGI for everything else, one `Reception` behind both."""
