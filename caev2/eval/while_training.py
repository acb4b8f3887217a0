"""A number for a student that is still in training: nearest neighbours on labelled images, every few epochs."""

from collections.abc import Mapping

from caev2.errors import Caev2Error
from caev2.eval.entrants import Entrant
from caev2.eval.parts import open_splits
from caev2.eval.run import judge
from caev2.eval.subjects import student_subject
from caev2.pretrain.student.model import CAEv2
from caev2.progress import Progress, Silent
from caev2.store.images import Place
from caev2.store.pixels.decode import Orientation


class NearestNeighbours:
    """Asks what share of `val` the nearest neighbours in `train` name rightly, as `caev2 probe --kind knn` does.

    Args:
        images: Labelled images in two parts, which are looked at now.
        workers: Processes that decode them.
        device: Where the student is.
        orientation: Whether the EXIF orientation is applied.
        resize_px: Short side before the centre crop; none: 8/7 of the crop.
        progress: Who is warned.

    Raises:
        SourceError: No such parts, or no classes.
    """

    def __init__(
        self,
        images: Place,
        *,
        device: str,
        orientation: Orientation,
        resize_px: int | None = None,
        workers: int = 1,
        progress: Progress | None = None,
    ):
        self._train, self._val = open_splits(images)
        self._workers = workers
        self._device, self._resize_px = device, resize_px
        self._orientation: Orientation = orientation
        self._progress = progress or Silent()

    def __call__(self, student: CAEv2) -> Mapping[str, float]:
        """The accuracy in percent, for the log; nothing where the features say nothing yet."""
        subject = student_subject(student, "student")
        try:
            found = judge(
                Entrant(role="student", name="student", open=lambda _: subject),
                self._train,
                self._val,
                kinds=("knn",),
                resize_px=self._resize_px,
                orientation=self._orientation,
                seed=0,
                device=self._device,
                workers=self._workers,
                progress=Silent(),
            )
        except Caev2Error as problem:  # training goes on; it notices by itself what is not finite
            self._progress.warn(f"No nearest neighbours this time: {problem}")
            return {}
        return {"knn_percent": round(100 * found.accuracy["knn"].value, 2)}
