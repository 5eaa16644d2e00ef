"""The tasks that fasttune can train, by the hub's names."""

from fasttune.tasks.base import Prediction, Rows, Task
from fasttune.tasks.text_classification import TextClassification

TASKS: dict[str, type[Task]] = {task.name: task for task in (TextClassification,)}

__all__ = ["TASKS", "Prediction", "Rows", "Task", "TextClassification"]
