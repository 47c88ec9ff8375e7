"""Run `python -m hyperformer.cli`."""

import sys

from hyperformer.cli.main import main

sys.exit(main())
