"""Decides whether a device or the image threads decode the next JPEG where both can; pure.

The device decodes while it runs the batch before, so its decoding is free as long as it takes less time than the runs.
Beyond that, the device would wait for its own decoder: then the image threads take every JPEG that they would have done
sooner. Both sides' times are learned from what they did last, so the shares follow the pictures, the network and
whatever else uses the processor.
"""

from __future__ import annotations

import msgspec

from saccade.service.ipc.messages import Done
from saccade.service.running_figures import RunningMean

_LATEST_SHARE = 0.1  # follows a change within some twenty answers


class DeviceDecoding:
    """What one device's decoder has to do, and how fast it is, as far as this API process knows."""

    def __init__(self, senders: int = 1) -> None:
        """`senders` is the number of API processes; each is assumed to send as many JPEGs as this one does."""
        self._senders = senders
        self.clear()

    def clear(self) -> None:
        """Forgets everything, because a new worker has replaced the old one."""
        self._unanswered = 0
        self._jpeg_share = RunningMean(_LATEST_SHARE)  # of the images that were sent
        self._image_s = RunningMean(_LATEST_SHARE)
        self._decode_s = RunningMean(_LATEST_SHARE)
        self._run_s = RunningMean(_LATEST_SHARE)

    def sent(self, *, is_jpeg: bool) -> None:
        """Records that an image was sent, as a JPEG or as pixels."""
        self._unanswered += is_jpeg
        self._jpeg_share.add(float(is_jpeg))

    def answered(self, done: Done) -> None:
        """Records the answer to a JPEG, whether or not it was decoded."""
        self._unanswered -= 1
        if not done.decode_s:
            return
        # The worker tells the time of the whole batch, in which other images came as pixels.
        jpegs = 1 + (done.batch_size - 1) * (self._jpeg_share.value or 0.0)
        self._image_s.add(done.decode_s / jpegs)
        self._decode_s.add(done.decode_s)
        self._run_s.add(done.infer_s)

    @property
    def load(self) -> DecoderLoad:
        figures = (self._image_s.value, self._decode_s.value, self._run_s.value)
        return DecoderLoad(self._unanswered * self._senders, *(value or 0.0 for value in figures))


class DecoderLoad(msgspec.Struct, frozen=True):
    """The work of a device's decoder; all times are in seconds, and 0 before the first JPEG was decoded."""

    waiting: int = 0  # JPEGs that were sent to it and not answered, of all API processes
    image_s: float = 0.0  # for each JPEG
    decode_s: float = 0.0  # for those of a usual batch
    run_s: float = 0.0  # of the network, for that batch


def device_decodes(load: DecoderLoad, threads_s: float) -> bool:
    """Returns whether the device takes the next JPEG; the image threads would have decoded it in `threads_s`.

    An idle device always takes it, so that its figures are renewed.
    """
    if load.waiting == 0 or load.decode_s <= load.run_s:
        return True
    return (load.waiting + 1) * load.image_s <= threads_s
