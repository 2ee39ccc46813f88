"""What keeps Beam's direct runner, with several workers, from losing data."""

from apache_beam.runners.portability.fn_api_runner import worker_handlers


def send_whole_streams() -> None:
    """Lets the direct runner of this process send a bundle's input in one piece.

    With several workers a thread of the runner sends once a second what is written so
    far of a bundle's input, and then empties the buffer. What another thread writes in
    between is gone, and no error tells (Beam 2.77,
    `TimeBasedBufferingClosableOutputStream` in `data_plane.py`). So inputs that take
    longer than a second to write, because they are large or the machine is busy, lose
    parts. A time limit of 0 turns that thread off; batch jobs do not need it.
    """
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
