"""Lets the tests import the parts of the phone, which are modules in its folder."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent.parent / "examples" / "phone"))
