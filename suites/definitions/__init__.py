"""The suites by name; each module tells how one model is loaded, called and judged."""

from .accuracy import Accuracy
from .base import Suite
from .components import Components
from .hubert import Hubert
from .known import Known
from .pipeline import Pipeline
from .rmvpe import Rmvpe
from .single import Ablation, ColdStart, Memory
from .synthesizer import Synthesizer

SUITES: dict[str, Suite] = {
    "rmvpe": Rmvpe(),
    "hubert": Hubert(),
    "synthesizer": Synthesizer(),
    "pipeline": Pipeline(),
    "components": Components(),
    "memory": Memory(),
    "cold_start": ColdStart(),
    "ablation": Ablation(),
    "accuracy": Accuracy(),
    "known": Known(),  # of the self-test: no configuration, hence in no list
}
