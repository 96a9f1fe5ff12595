"""python -m lumigraph.cli"""

import sys

from lumigraph.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
