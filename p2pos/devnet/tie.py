"""Run a module that ends when the process that started it does, from its first moment on.

`python -m p2pos.devnet.tie PARENT_PID MODULE ARGUMENTS…` is `python -m MODULE ARGUMENTS…` with a thread that watches
the parent. A child's own leash (see `p2pos.leash`) works once it serves; before that a node imports torch and loads
weights for seconds, in which nobody reads its standard input. SIGTERM ends it there, and later lets it drain.
"""

import os
import runpy
import signal
import sys
import threading
import time

LOOK_EVERY_S = 0.5
"""Between two looks at the parent; an orphan lives that long."""


def watch(parent: int) -> None:
    """Send this process SIGTERM once its parent is another than `parent`."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Watch and run."""
    _, parent, module, *arguments = sys.argv
    threading.Thread(target=watch, args=(int(parent),), name="tie", daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
