"""The tasks: each is one file with a subclass of `Task`, and an entry here."""

from .answering import Answering
from .captioning import Captioning
from .mixture import MixtureOfTasks
from .prediction import Prediction
from .retrieval import Retrieval
from .task import Task
from .transcription import Transcription
from .translation import Translation

_ALL = (
    Captioning(),
    Translation(),
    Answering(),
    Retrieval(),
    Transcription(),
    Prediction(),
    MixtureOfTasks(),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
