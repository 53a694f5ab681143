"""What it cost to encode the images that the models were shown, once for all precisions."""

from collections.abc import Mapping
from typing import Any

from radquant.files import read_json
from radquant.reporting.finished_run import Run
from radquant.reporting.formatting import escape, number, prose, size
from radquant.settings.run import ORIGINAL, encoder_of

COSTS = ("images", "wall_seconds", "cpu_seconds")


def encoding_of(run: Run) -> dict[str, dict[str, Any]]:
    """What each vision part took that encoded images of the evaluation, by its checkpoint.

    Images, wall and CPU seconds for all of them, the most memory (bytes), and per image and report.
    Empty without images, and of results of a time when each precision encoded them itself.
    """
    found: dict[str, dict[str, Any]] = {}
    if not run.config["task"].get("image_column"):
        return found
    shards, keys = run.config.get("images", {}).get("shards", 1), set()
    for name in dict.fromkeys(encoder_of(run.config, run.checkpoint(p)) for p in run.precisions):
        folder = run.folder / "features" / name / "evaluation"
        if not folder.is_dir():
            continue
        stems = [f"shard-{number}-of-{shards}.json" for number in range(1, shards + 1)]
        records = [read_json(folder / stem) for stem in stems]
        key = records[0]["key"]
        if key in keys:  # the same vision part: its images were encoded once for both
            continue
        keys.add(key)
        sums = {cost: sum(record[cost] for record in records) for cost in COSTS}
        images, shown = sums["images"], run.shards[ORIGINAL]
        told = [sum(shard[name] for shard in shown) for name in ("images", "reports")]
        found[name] = {
            **sums,
            "peak_process_bytes": max(record["peak_process_bytes"] for record in records),
            "device": records[0]["device"],
            "dtype": records[0]["dtype"],
            "seconds_per_image": sums["wall_seconds"] / images if images else None,
            "cpu_seconds_per_image": sums["cpu_seconds"] / images if images else None,
            "images_per_report": told[0] / told[1],
        }
    return found


def encoding_notes(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The paragraph about it; empty without images."""
    sentences = []
    for name, cost in found.items():
        if cost["seconds_per_image"] is None:
            continue
        whose = "the original's" if name == ORIGINAL else f"{escape(name)}'s own"
        report = cost["seconds_per_image"] * cost["images_per_report"]
        sentences.append(
            f"Images were encoded once, by {whose} vision part, for every precision that has it. "
            f"That took {number(cost['seconds_per_image'], 2)} s "
            f"({number(cost['cpu_seconds_per_image'], 2)} CPU s) an image on {cost['device']} in "
            f"{cost['dtype']}, for {cost['images']:,} images, at a peak of "
            f"{size(cost['peak_process_bytes'])}. No other time or memory told here includes it. "
            f"For a report of its own, with {number(cost['images_per_report'], 1)} images on "
            f"average, add {number(report, 2)} s to s/report, and the vision part to the weights "
            "in memory."
        )
    return prose(*sentences) if sentences else ""
