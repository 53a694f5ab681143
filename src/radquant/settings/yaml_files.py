"""What a YAML parser accepts or says too little about: where a configuration is wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from radquant.errors import UserError


def check_yaml(path: str | Path) -> None:
    """Raise UserError with line and column if `path` is no YAML, or says something twice.

    Snakemake names no line, and of two equal keys every parser silently takes the last.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if _is_json(text):  # which may be indented with tabs, and Snakemake reads it, too
            return
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: byte {error.start + 1}") from None
    except RecursionError:
        raise UserError(f"{path} is no configuration: its brackets are nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        raise UserError(
            f"{path} is no YAML: {_place(error.problem_mark)}: {error.problem}; is a bracket or a "
            "quote open above, or a line indented with a tab or otherwise than its neighbours?"
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {str(error).splitlines()[0]}") from None
    for mapping in _mappings(root):
        seen: dict[str, yaml.Mark] = {}
        for key, _ in mapping.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise UserError(
                    f"{path}: {key.value!r} stands in {_place(key.start_mark)} and already in "
                    f"{_place(seen[key.value])}, and only one of them would count; join them"
                )
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = key.start_mark


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _place(mark: yaml.Mark | None) -> str:
    return "its end" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """All mappings under `root`, each once however many aliases lead to it."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
