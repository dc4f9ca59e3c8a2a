"""What stands behind ``make``: from a bare machine to a running system, and back.

Runs before there is anything of Perry's, so everything here uses Python's standard library alone.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (it is older Pythons that have to be told)
    sys.exit("Stopped: Perry needs Python 3.11 or newer, and this is " + sys.version.split()[0] + "; install one.")
