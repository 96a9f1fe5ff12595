"""`python -m lumigraph` is `lumigraph`."""

import sys

from lumigraph.cli.main import main

sys.exit(main())
