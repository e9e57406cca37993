"""Whether loops can be compiled here: for who reads records or documents natively."""

import importlib.util
import sys


def missing() -> str:
    """What is missing, empty when nothing is; llvmlite is looked for, not imported."""
    if sys.maxsize < 2**32 or sys.byteorder != "little":
        return "it needs a 64-bit little-endian machine"
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite is not installed: pip install 'vector-assets[native]'"
    return ""
