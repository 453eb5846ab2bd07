"""`python -m auditgap`."""

from auditgap.cli import main

main()
