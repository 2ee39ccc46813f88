"""Beam's direct runner with several workers loses nothing on a slow machine."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.worker import data_plane

import nsl.beam
import nsl.tools
from tests.beam.pack_nbrs_test import write_inputs
from tests.tools.example_files import read_records

PAUSE = 0.005


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes writing and sending a bundle's input take long, compared to a second.

    It is the second that is made short.
    """
    write_parts = fn_runner.BundleManager._send_input_to_worker
    start_thread = data_plane.PeriodicThread.__init__
    send = data_plane._GrpcDataChannel._enqueue_to_send

    def slowly(parts: Iterable[bytes] | None) -> Iterator[bytes]:
        for part in parts or []:
            yield part
            time.sleep(PAUSE)

    def send_slowly(channel: Any, element: Any) -> None:
        time.sleep(2 * PAUSE)
        send(channel, element)

    monkeypatch.setattr(
        fn_runner.BundleManager,
        "_send_input_to_worker",
        lambda manager, bundle, transform, parts: write_parts(
            manager, bundle, transform, slowly(parts)
        ),
    )
    monkeypatch.setattr(
        data_plane.PeriodicThread,
        "__init__",
        lambda thread, seconds, function: start_thread(
            thread, seconds * PAUSE / 2, function
        ),
    )
    monkeypatch.setattr(data_plane._GrpcDataChannel, "_enqueue_to_send", send_slowly)


@pytest.mark.usefixtures("slow_machine")
def test_all_parts_of_a_bundle_arrive(tmp_path: Path) -> None:
    names = [f"n{i}" for i in range(40)]
    examples = [{"id": [name], "x": [float(i)]} for i, name in enumerate(names)]
    edges = [(a, names[i - j]) for i, a in enumerate(names) for j in range(1, 4)]
    paths = write_inputs(tmp_path, examples[:20], examples[20:], edges)
    nsl.tools.pack_nbrs(*paths, tmp_path / "local")
    nsl.beam.pack_nbrs(
        *paths,
        tmp_path / "beam",
        pipeline_options=[
            "--runner=FnApiRunner",
            "--direct_running_mode=multi_threading",
            "--direct_num_workers=2",
        ],
    )
    found, expected = (
        sorted(read_records(tmp_path / name)) for name in ("beam", "local")
    )
    assert found == expected
