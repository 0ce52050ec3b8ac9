"""`python -m haulcast` is `haulcast`."""

import sys

from .cli import main

sys.exit(main())
