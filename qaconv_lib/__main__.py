"""``python -m qaconv_lib``: see `cli`."""

import sys

from qaconv_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
