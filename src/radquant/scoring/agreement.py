"""How well an annotator agrees with RadGraph-XL, where that was measured."""

from pathlib import Path
from typing import Any

from radquant.files import read_json

# benchmarks/lexicon.py writes this file.
AGREEMENT = Path(__file__).with_name("lexicon_agreement.json")


def agreement(annotator: str) -> dict[str, Any] | None:
    """Return what was measured of `annotator`, None if that was of other rules."""
    record = read_json(AGREEMENT)
    return record if record["lexicon"] == annotator else None
