"""Files of weights as somebody to judge: official checkpoints, and what `caev2 export` wrote; no run is needed."""

from dataclasses import dataclass
from pathlib import Path

from caev2.eval.checks import check_weights
from caev2.eval.entrants import Entrant
from caev2.eval.features import Subject
from caev2.eval.subjects import student_subject
from caev2.pretrain.identity import FILE_NAME
from caev2.pretrain.student.model import build
from caev2.pretrain.weights.adopt import sha256_of_weights
from caev2.pretrain.weights.foreign import EXPORTED
from caev2.pretrain.weights.official import import_official
from caev2.recipe import fingerprint, to_mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file of weights, or an exported folder; nothing of it is read yet, and nothing in it is ever run."""

    path: Path

    @staticmethod
    def fits(path: Path) -> bool:
        """Whether weights, and no run, lie there."""
        return path.is_file() or ((path / EXPORTED).is_file() and not (path / FILE_NAME).exists())

    def student(self) -> Entrant:
        """The encoder of the file."""
        name = f"student of {self.path.name}"

        def open_it(device: str) -> Subject:
            model, _ = import_official(self.path)
            check_weights(model.encoder.state_dict().items(), str(self.path))
            return student_subject(model.to(device).eval(), name, f"file {sha256_of_weights(self.path)}")

        return Entrant(role="student", name=name, open=open_it)

    def random_start(self, seed: int) -> Entrant:
        """An untrained student of the same sizes."""
        name = "random start"

        def open_it(device: str) -> Subject:
            model, _ = import_official(self.path)
            identity = f"random start {fingerprint(to_mapping(model.settings))} {seed}"
            return student_subject(build(model.settings, seed).to(device).eval(), name, identity)

        return Entrant(role="random start", name=name, open=open_it)
