"""Every error of the offline side; the command line maps each branch to one exit code.

TrainingError
├── ConfigError            the configuration is wrong: names the key and the file
├── DataError              a data file is wrong: names the file, the column, the row
│   └── DataUnavailable    a data set is neither here nor reachable
├── RunError               a run folder cannot be read or written as asked
├── Interrupted            Ctrl-C or SIGTERM; the checkpoint was written first
├── Diverged               the loss is not a finite number
├── NullPredictor          training across environments ended with a network that predicts nothing
└── ExportFailed           the exported graph disagrees with the network
"""

from pathlib import Path


class TrainingError(Exception):
    """Root of this tree; the message is one sentence for the person at the terminal."""


class ConfigError(TrainingError):
    """The configuration is wrong; the message names the key and the file."""


class DataError(TrainingError):
    """A data file is wrong; the message names the file and, where known, the column and the row."""


class DataUnavailable(DataError):
    """A data set is neither on this machine nor reachable; the message says where it was looked for."""


class RunError(TrainingError):
    """A run folder is missing, incomplete, torn or already taken."""


class Interrupted(TrainingError):
    """Training was stopped from outside after its checkpoint had been written.

    Attributes:
        checkpoint: the file that ``resume`` starts from.
        step: the last optimiser step it holds.
    """

    def __init__(self, checkpoint: Path, step: int) -> None:
        super().__init__(f"interrupted after step {step}; continue with --resume from {checkpoint}")
        self.checkpoint = checkpoint
        self.step = step


class Diverged(TrainingError):
    """The training loss became NaN or infinite, so every later step would be wasted."""


class NullPredictor(TrainingError):
    """The trained network is no better than a constant on the rows it was trained on."""


class ExportFailed(TrainingError):
    """A graph did not reproduce the network's logits, so nothing was published."""
