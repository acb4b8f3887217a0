"""An event file of TensorBoard, written by this process itself.

torch's own writer does the same from a thread, which tells of a full disk by a traceback and is in the way where
processes are forked; and it takes seconds to import. What an event is comes from the package `tensorboard`.
"""

import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

import crc32c

from caev2.store.disk import writing

FOLDER = "tensorboard"
_VERSION = "brain.Event:2"
_CRC_DELTA = 0xA282EAD8  # of TFRecord: a crc of bytes that hold their own crc would be a constant


class EventFile:
    """Appends figures to a new event file of a run.

    Args:
        run: Folder of the run; the file lies in its `tensorboard/`.
        from_step: TensorBoard forgets what older files hold of this step and later ones.
    """

    def __init__(self, run: Path, from_step: int):
        # here, for the package is an extra
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        self._event, self._summary = Event, Summary
        folder = run / FOLDER
        # TensorBoard reads the files of a folder in the order of their names
        self._path = folder / f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb", buffering=0)
        self._append(Event(wall_time=time.time(), file_version=_VERSION))
        begun = SessionLog(status=SessionLog.START)
        self._append(Event(wall_time=time.time(), step=from_step, session_log=begun))

    def write(self, record: dict[str, Any]) -> None:
        """Append the numbers of a step, finite or not.

        Raises:
            OutputError: They cannot be written.
        """
        values = [self._summary.Value(tag=name, simple_value=number) for name, number in figures(record).items()]
        summary = self._summary(value=values)
        self._append(self._event(wall_time=time.time(), step=record["step"], summary=summary))

    def flush(self) -> None:
        """Nothing: there is no buffer. A crash of the machine may take the last events, which training shows again."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, event: Any) -> None:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        record = length + _masked_crc(length) + data + _masked_crc(data)
        with writing(self._path):
            while record:  # a disk that becomes full takes a part, and refuses the rest
                record = record[self._file.write(record) :]


def figures(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record but for its step; what is true counts 1."""
    return {name: float(value) for name, value in record.items() if name != "step" and isinstance(value, int | float)}


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c.crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _CRC_DELTA) & 0xFFFFFFFF)
