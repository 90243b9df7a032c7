"""What TensorBoard's own loader finds in the event files of a run, as JSON."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ALL = {"scalars": 0, "images": 0, "histograms": 0}
found = {}
for part in ["train", "validation"]:
    events = EventAccumulator(f"{sys.argv[1]}/{part}", size_guidance=ALL)
    events.Reload()
    tags = events.Tags()
    found[part] = {
        "version": events.file_version,
        "scalars": {
            tag: [[event.step, event.value] for event in events.Scalars(tag)]
            for tag in tags["scalars"]
        },
        "images": {
            tag: [
                [image.step, image.width, image.height, image.encoded_image_string[:4].hex()]
                for image in events.Images(tag)
            ]
            for tag in tags["images"]
        },
        "histograms": {
            tag: [
                [event.step, h.num, h.min, h.max, len(h.bucket), sum(h.bucket)]
                for event in events.Histograms(tag)
                for h in [event.histogram_value]
            ]
            for tag in tags["histograms"]
        },
    }
json.dump(found, sys.stdout)
