"""Every failure a user can meet, in one tree.

    Caev2Error
    ├── ConfigError            a recipe, key, value or name that cannot be used
    ├── SourceError            images that are missing, empty or not what they were
    │   ├── ImageUndecodable   one file is no image, or a damaged one
    │   ├── PixelDrift         the student would see other pixels than the teacher saw
    │   └── SourceUnreachable  the server that images lie on does not answer, or refuses
    ├── StoreError             a store of targets cannot be used
    │   ├── StoreMismatch      it holds something else than what was asked for
    │   ├── StoreIncomplete    it has not been sealed
    │   ├── StoreCorrupt       bytes on disk are not the bytes that were written
    │   └── StoreUnreachable   the server that a store lies on does not answer, or refuses
    ├── TeacherError           a teacher cannot be found, read or recognised
    ├── CheckpointError        a checkpoint cannot be found, read or fitted
    │   └── CheckpointDamaged  its bytes are not the bytes that were written
    ├── UnsafeFile             a file asks to run code or to leave its folder
    ├── OutputError            a place cannot be written
    ├── WorkerDied             a data worker was ended from outside, most often for want of memory
    └── TrainingDiverged       losses stopped being finite

A message has three parts: where it happened, the two values that disagree, and what to do next.
The command line prints it as one paragraph and exits with status 2; a traceback means a bug.
"""


class Caev2Error(Exception):
    """An expected failure: its message is complete and meant for the user."""


class ConfigError(Caev2Error):
    """A recipe, key, value or name that cannot be used."""


class MachineDiffers(ConfigError):
    """A machine of a cluster that would compute something else, or cannot compute at all."""


class SourceError(Caev2Error):
    """Images that are missing, empty or not what they were."""


class ImageUndecodable(SourceError):
    """One file is no image, or a damaged one; the message is the reason kept with its row."""


class PixelDrift(SourceError):
    """The student would see other pixels than the teacher saw."""


class SourceUnreachable(SourceError):
    """The server that images lie on does not answer, or refuses."""


class StoreError(Caev2Error):
    """A store of targets cannot be used."""


class StoreMismatch(StoreError):
    """A store holds something else than what was asked for."""


class StoreIncomplete(StoreError):
    """A store has not been sealed: its extraction did not finish."""


class StoreCorrupt(StoreError):
    """Bytes on disk are not the bytes that were written."""


class StoreUnreachable(StoreError):
    """The server that a store lies on does not answer, or refuses."""


class TeacherError(Caev2Error):
    """A teacher cannot be found, read or recognised."""


class CheckpointError(Caev2Error):
    """A checkpoint cannot be found, read or fitted."""


class CheckpointDamaged(CheckpointError):
    """The bytes of a checkpoint are not the bytes that were written."""


class UnsafeFile(Caev2Error):
    """A file asks to run code or to leave its folder."""


class OutputError(Caev2Error):
    """A place cannot be written."""


class WorkerDied(Caev2Error):
    """A data worker was ended from outside, most often for want of memory."""


class TrainingDiverged(Caev2Error):
    """Losses stopped being finite."""


class RankLost(Caev2Error):
    """Another process of the same training died or left."""


class FirstRankRefused(Caev2Error):
    """The first rank has raised an error, and said it."""
