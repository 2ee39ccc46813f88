"""A workaround for data loss in Beam's direct runner with several workers."""

from apache_beam.runners.portability.fn_api_runner import worker_handlers


def send_whole_streams() -> None:
    """Makes this process's direct runner send the input of each bundle in one piece.

    With several workers, a thread of the runner flushes the input of a bundle once per
    second and then clears the buffer. Anything that another thread writes in between is
    lost without an error (Beam 2.77, `TimeBasedBufferingClosableOutputStream` in
    `data_plane.py`). Inputs that take longer than a second to write, because they are
    large or the machine is busy, may therefore be incomplete. A time limit of 0
    disables this thread, which batch jobs do not need.
    """
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
