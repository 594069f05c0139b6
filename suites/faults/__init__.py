"""Known faults of ports, as named and reversible mutations of ``rvc_mlx``.

Each says which model it is in, how it is made, and which stage must be named for it. They are what
``selftest faults`` injects; nothing else imports them, and a process without MLX can list them.
"""

from __future__ import annotations

from . import drawn
from .base import Fault, Patches
from .hubert import FAULTS as HUBERT
from .pipeline import FAULTS as PIPELINE
from .rare import FAULTS as RARE
from .rmvpe import FAULTS as RMVPE
from .synthesizer import FAULTS as SYNTHESIZER

__all__ = ["FAULTS", "Fault", "Patches", "inject"]


def inject(name: str, patches: Patches) -> None:
    """Make a fault by its name: one of ``FAULTS``, or one that was drawn."""
    if name in FAULTS:
        FAULTS[name].inject(patches)
    else:
        drawn.inject(name, patches)


FAULTS: dict[str, Fault] = {fault.key: fault for fault in (*RMVPE, *HUBERT, *SYNTHESIZER, *PIPELINE, *RARE)}
