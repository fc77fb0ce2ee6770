"""Base classes and data structures, for authors of methods.

A method is a subclass of `MultimodalModel`, or of `JointModel` (one prediction
from joined features) or `LateModel` (a head for each modality).
"""

from keras_mla.core.batch import Batch as Batch
from keras_mla.core.joint import JointModel as JointModel
from keras_mla.core.late import LateModel as LateModel
from keras_mla.core.losses import MeanLoss as MeanLoss
from keras_mla.core.model import MultimodalModel as MultimodalModel
from keras_mla.core.tasks import Task as Task
from keras_mla.core.teacher import Teacher as Teacher
from keras_mla.core.update import Outputs as Outputs
from keras_mla.core.update import Stage as Stage
from keras_mla.core.update import Update as Update

__all__ = [
    "Batch",
    "JointModel",
    "LateModel",
    "MeanLoss",
    "MultimodalModel",
    "Outputs",
    "Stage",
    "Task",
    "Teacher",
    "Update",
]
