"""The environment of every test session: offline, quiet, and away from the user's home folder.

Set at import, before any test module can import Ultralytics or Ray, which both read it when they are
imported. Worker processes inherit it. Under pytest-xdist each worker makes its own.
"""

import atexit
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import hypothesis

# Ray's unix sockets live below it, and a socket's path has at most 107 characters: not pytest's tmp_path.
_PRIVATE = Path(tempfile.mkdtemp(prefix="yf-", dir="/tmp"))
atexit.register(shutil.rmtree, _PRIVATE, ignore_errors=True)

for _name in ("home", "ray", "tmp", "yolo"):
    (_PRIVATE / _name).mkdir()

os.environ.pop("RAY_ADDRESS", None)  # it would win over address="local"
os.environ |= {
    "HOME": str(_PRIVATE / "home"),  # Ray writes ~/.ray; a stale cluster file there breaks address="local"
    "MPLBACKEND": "Agg",
    "RAY_TMPDIR": str(_PRIVATE / "ray"),
    "RAY_USAGE_STATS_ENABLED": "0",
    "TMPDIR": str(_PRIVATE / "tmp"),  # measurements take turns by locks there: not with those of other workers
    "YOLO_AUTOINSTALL": "false",
    "YOLO_CONFIG_DIR": str(_PRIVATE / "yolo"),
    "YOLO_OFFLINE": "true",
}

tempfile.tempdir = None  # it was found before

# A deadline measures the machine and its other work, not the code.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

# A shell that starts a job in the background has it ignore Ctrl-C, and so all of its children, also those of tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# OpenVINO imports absl if it is there (TensorBoard brings it). Its handler of logs closes the stream that it found when
# it was imported, as soon as somebody sets up logging: that would be pytest's own.
with suppress(ImportError):
    from absl import logging

    logging.get_absl_handler().python_handler.stream = sys.__stderr__
