"""`python -m advlib`: the command line."""

from advlib.cli import main

main()
