"""`python -m maed`."""

import sys

from maed.cli import main

if __name__ == "__main__":  # processes of a pool import it under another name
    sys.exit(main())
