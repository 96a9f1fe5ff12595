"""`python -m lumigraph` is `lumigraph`."""

import sys

from lumigraph.cli import main

sys.exit(main())
