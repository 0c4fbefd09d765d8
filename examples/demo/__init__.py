"""The main job shown on real input: a burst over HTTP, two SIGKILLs, and a bucket that is compared with the input."""
