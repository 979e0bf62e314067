# SPDX-License-Identifier: Apache-2.0
"""Its place puts this folder on the import path, so that tests in folders below find the shared helpers here.

What takes seconds to start is started once, when the first test asks for it.
"""

from __future__ import annotations

import gc
import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side, in as many processes as there are processors; those that they start read this too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "register_at_fork"):
    # What earlier tests left to the collector may wait, when it goes, for threads that a fork leaves behind (PyAV's).
    os.register_at_fork(after_in_child=gc.freeze)


@pytest.fixture(scope="session")
def hub():
    """A stand-in for the Hub; one for all tests, as are the processes with a client."""
    from hub_stand_in import StandIn

    with StandIn() as server:
        yield server


@pytest.fixture(scope="session")
def processes(hub, tmp_path_factory):
    """Two clients that are online and one that is offline; all import at the same time."""
    from hub_client_process import ClientProcess

    settings = [{}, {}, {"HF_HUB_OFFLINE": "1"}]
    started = [ClientProcess(hub.url, tmp_path_factory.mktemp("home"), **setting) for setting in settings]
    yield started
    for process in started:
        process.close()
    for process in started:
        process.wait()
        # The client logs every request in full, and every error was told with all that led to it.
        assert "canary" not in process.log.read_text().lower()


@pytest.fixture(scope="session")
def client(processes):
    """A client that is online."""
    return processes[0]


@pytest.fixture
def load(hub, client, tmp_path):
    """Load from the Hub into a cache of the test's own."""
    from hub_helpers import LOAD

    hub.requests.clear()

    def act(name, **options):
        return client.run(LOAD, name=name, options={"cache_dir": str(tmp_path / "cache"), **options})

    return act
