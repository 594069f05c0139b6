"""The whole conversion in PyTorch: the networks run in it, the index search and every step between in NumPy.

What happens in which order is in ``rvc_common.pipeline``, for both implementations alike.
"""

from rvc_common import pipeline

from .retrieval import load_bank


class Pipeline(pipeline.Pipeline):
    __doc__ = pipeline.Pipeline.__doc__
    load_bank = staticmethod(load_bank)
