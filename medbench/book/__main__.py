"""`python -m medbench.book build|edition|text|html|chapter|notebooks|lint`, what the Makefile calls."""

import sys

from .runner import main

sys.exit(main())
