"""A moving average of the weights, which often judges better than the weights themselves."""

from collections.abc import Mapping
from typing import Generic, TypeVar, cast

from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

Student = TypeVar("Student", bound=nn.Module)


class Average(Generic[Student]):
    """The average of a student's weights over steps; the first steps count more, so that the start is soon forgotten.

    Args:
        student: On its device, with the weights that it starts from.
        decay: How much of the average stays at each step, such as 0.9999.
    """

    def __init__(self, student: Student, decay: float):
        self._ema, self._student = ModelEmaV3(student, decay=decay, use_warmup=True), student

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """By the names of the student's."""
        return self._ema.module.state_dict()

    @property
    def student(self) -> Student:
        """A student with the averaged weights."""
        return cast(Student, self._ema.module)

    def update(self, step: int) -> None:
        """Take the weights after a step in."""
        self._ema.update(self._student, step=step)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from such an average."""
        self._ema.module.load_state_dict(weights)
