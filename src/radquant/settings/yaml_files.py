"""What a YAML parser accepts or says too little about: where a configuration is wrong."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from radquant.errors import UserError
from radquant.files import require_file

# A configuration has a few thousand nodes.
MOST_BYTES = 1_000_000
# Tags that a value may have. Others, such as `!!python/object`, make objects.
PLAIN = {
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge", "timestamp")
}
# To YAML 010 is eight, 12:30 is 750 and 0x10 is sixteen; and no setting is a date.
AS_WRITTEN = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9_]{0,99})"),
    "tag:yaml.org,2002:float": re.compile(r"[^:]*"),
    "tag:yaml.org,2002:timestamp": re.compile(r"(?!)"),
}


def check_yaml(path: str | Path) -> None:
    """Raise UserError with line and column if `path` is no YAML, says something twice, or what YAML
    takes for something else.

    Snakemake names no line, and of two equal keys every parser silently takes the last.
    """
    require_file(path)
    if Path(path).stat().st_size > MOST_BYTES:
        raise UserError(f"{path} has over {MOST_BYTES} bytes, which is no configuration")
    try:
        text = Path(path).read_text(encoding="utf-8")
        if _is_json(text, path):  # which may be indented with tabs, and Snakemake reads it, too
            return
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no UTF-8 text: byte {error.start + 1}; save it as UTF-8"
        ) from None
    except RecursionError:
        raise UserError(f"{path} is no configuration: its brackets are nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        raise UserError(
            f"{path} is no YAML: {_place(error.problem_mark)}: {error.problem}; is a bracket or "
            "quote open above, or a line indented with a tab or otherwise than its neighbours?"
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {str(error).splitlines()[0]}") from None
    for node in _nodes(root):
        _check_plain(node, path)
        if isinstance(node, yaml.MappingNode):
            _check_once(node, path)
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} is no configuration: it must hold keys and their values")


def _check_once(mapping: yaml.MappingNode, path: str | Path) -> None:
    seen: dict[str, yaml.Mark] = {}
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise UserError(
                f"{path}: {key.value!r} stands in {_place(key.start_mark)} and already in "
                f"{_place(seen[key.value])}, and only one of them would count; join them"
            )
        if isinstance(key, yaml.ScalarNode):
            seen[key.value] = key.start_mark


def _check_plain(node: yaml.Node, path: str | Path) -> None:
    """Raise UserError for a value that makes an object, or another number than it looks like."""
    place = _place(node.start_mark)
    if node.tag not in PLAIN:
        raise UserError(f"{path}: {place} has the tag {node.tag[:100]!r}; leave it out")
    if node.tag in AS_WRITTEN and not AS_WRITTEN[node.tag].fullmatch(node.value):
        raise UserError(
            f"{path}: {place} has {node.value[:100]}, to YAML a date or another number than it "
            "looks like; write a text in quotes, a number in plain digits"
        )


def _is_json(text: str, path: str | Path) -> bool:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        double = next((key for key in keys if keys.count(key) > 1), None)
        if double is not None:
            raise UserError(
                f"{path}: {double!r} stands twice in one object, and only one of them would "
                "count; join them"
            )
        return dict(pairs)

    try:
        json.loads(text, object_pairs_hook=once)
    except ValueError:
        return False
    return True


def _place(mark: yaml.Mark | None) -> str:
    return "its end" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """All nodes from `root` on, each once however many aliases lead to it."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
