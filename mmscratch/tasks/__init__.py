"""What the pieces are put to. A task is one file with a subclass of `Task`, and a line here."""

from .captioning import Captioning
from .task import Task
from .translation import Translation

TASKS: dict[str, Task] = {task.name: task for task in (Captioning(), Translation())}
