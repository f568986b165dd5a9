"""The tasks: each is one file with a subclass of `Task`, and an entry here."""

from .answering import Answering
from .captioning import Captioning
from .task import Task
from .translation import Translation

TASKS: dict[str, Task] = {task.name: task for task in (Captioning(), Translation(), Answering())}
