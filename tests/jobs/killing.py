"""A dispatcher process that tests kill: `python -m tests.jobs.killing DATA`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from lumigraph.jobs.data_folder import DataFolder
from lumigraph.jobs.database import Database
from lumigraph.jobs.dispatcher import Dispatcher
from lumigraph.jobs.executors.prefork import PreforkExecutor
from lumigraph.jobs.migrate import migrate
from lumigraph.jobs.store import Store


def main() -> None:
    folder = DataFolder(Path(sys.argv[1]))
    with folder.lock("nowhere"):
        url = folder.database_url()
        database = Database(url)
        migrate(database)
        executor = PreforkExecutor(folder, url)
        executor.cores = 3
        Dispatcher(Store(database), executor, retry_delay_s=0.01).start()
        print("ready", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
