"""From photos to a scene on a server: python remote_scan.py URL TOKEN PHOTOS OUT [SECONDS]

The server and its workers may stop and restart at any moment; no request is lost.
"""

import sys

from lumigraph.client import Client
from lumigraph.wire.events import Metrics, Progress

url, token, photos, out = sys.argv[1:5]
seconds = float(sys.argv[5]) if len(sys.argv) > 5 else 60.0

with Client(url, token) as client:
    project = client.projects.create("Remote scan")
    print("uploaded", len(project.upload(photos)), "files", flush=True)
    jobs = project.scan(train={"seconds": seconds, "downscale": 4})
    for job in jobs:
        for event in job.follow():
            if isinstance(event, Progress):
                print(f"{job.state.request.verb}: {event.stage} {event.done:g}/{event.total}", flush=True)
            elif isinstance(event, Metrics) and "psnr" in event.values:
                print(f"after {event.seconds:.0f} s: {event.values['psnr']:.2f} dB", flush=True)
        for path in job.download(out):
            print("wrote", path, flush=True)
        if job.state.request.verb == "evaluate":
            print(f"held-out views: {job.state.result['psnr']:.2f} dB", flush=True)
