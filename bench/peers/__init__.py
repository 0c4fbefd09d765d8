"""Other job libraries beside cabrank: `python -m bench.peers`."""
