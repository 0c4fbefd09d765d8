"""`python -m cabrank` is `cabrank`."""

from cabrank.cli import main

main()
