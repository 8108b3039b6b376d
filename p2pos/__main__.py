"""`python -m p2pos` is `p2pos`."""

from p2pos.cli.main import main

main()
