"""What the process imports from which the workers of a study are forked, see `nlproar.study.processes`.

Importing this module is for that process only: it changes how the process ends.
"""

import atexit
import gc
import os

import nlproar.explain.gradient
import nlproar.explain.integrated_gradient
import nlproar.model.bilstm_attention
import nlproar.run.cli
import nlproar.run.context
import nlproar.run.curve
import nlproar.run.run  # noqa: F401

gc.collect()
gc.freeze()  # workers share this memory: a garbage collection that looks at it would copy it

# Without this, the process takes a second after the end of the study to free what it has imported, object by object.
atexit.register(os._exit, 0)
