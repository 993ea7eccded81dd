"""`python -m edgecal`."""

from edgecal.cli.app import main

main()
