"""The tasks that fasttune can train, by the hub's names."""

from fasttune.data.rows import Rows
from fasttune.tasks.base import Prediction, Task
from fasttune.tasks.question_answering import QuestionAnswering
from fasttune.tasks.text_classification import TextClassification
from fasttune.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (TextClassification, QuestionAnswering, TokenClassification)
}

__all__ = ["TASKS", "Prediction", "QuestionAnswering", "Rows", "Task", "TextClassification", "TokenClassification"]
