"""``python -m qaconv_lib``: see `cli`."""

import os
import sys

from qaconv_lib.cli import main

if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own is for its kernel only
    sys.exit(main())
