"""The whole conversion in PyTorch: the networks run in it, the index search and every step between in NumPy.

The order of the steps is ``rvc_common.pipeline``'s, the same for both implementations.
"""

from rvc_common import pipeline

from .retrieval import load_bank


class Pipeline(pipeline.Pipeline):
    __doc__ = pipeline.Pipeline.__doc__
    load_bank = staticmethod(load_bank)
