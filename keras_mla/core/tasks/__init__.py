"""Tasks: the meaning of labels and predictions."""

from keras_mla.core.tasks.choice import TASKS as TASKS
from keras_mla.core.tasks.choice import check_task as check_task
from keras_mla.core.tasks.choice import task_of as task_of
from keras_mla.core.tasks.task import UNLABELLED as UNLABELLED
from keras_mla.core.tasks.task import Task as Task
from keras_mla.core.tasks.task import wants_classes as wants_classes
