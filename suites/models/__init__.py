"""The suites by name; each module tells how one model is loaded, called and judged."""

from .base import Suite
from .rmvpe import Rmvpe

SUITES: dict[str, Suite] = {"rmvpe": Rmvpe()}
