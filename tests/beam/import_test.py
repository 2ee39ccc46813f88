"""What `import nsl.beam` says where Apache Beam is not installed."""

import pathlib
import subprocess
import sys

import nsl


def test_a_missing_beam_is_named() -> None:
    program = (
        "import sys\nsys.modules['apache_beam'] = None\n"
        "import nsl\n"
        "try:\n    nsl.beam\nexcept ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=pathlib.Path(nsl.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'nsl[beam]'" in done.stdout
