"""What ends the demo early, in words for the person who started it."""


class DemoFailed(Exception):
    """The demo could not be carried to its end; the message says why and what to do. Running it again is safe."""
