"""What is asked of processes."""

import math
import os
import subprocess
import time

from nodewright_agent.runtime import processes


def test_when_a_process_began():
    before = time.time()
    with subprocess.Popen(["sleep", "60"]) as child:
        time.sleep(0.2)
        began = processes.started(child.pid)
        child.kill()
    assert before - 0.1 <= began <= time.time() - 0.1
    assert processes.started(child.pid) == math.inf
    assert processes.started(os.getpid()) < before
