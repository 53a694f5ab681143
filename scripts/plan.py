"""Say what memory, disk and time each precision of a configuration will take, before a download.

Of a hub model only its config.json is fetched. Memory is right within a factor of 1.5; times are
rough, with prompts of usual lengths, and for outputs of generation.max_new_tokens tokens.
"""

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from radquant.bounds import between
from radquant.cli import new_parser, run
from radquant.settings.configuration import resolve
from radquant.settings.places import places_of
from radquant.settings.yaml_files import check_yaml

EXAMPLE = "python scripts/plan.py config/mimic-mistral.yaml --gpu-gb 24"
REPOSITORY = Path(__file__).resolve().parents[1]


def arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="the configuration, such as config.yaml")
    help_text = "plan for a GPU with so many GB, of an NVIDIA L4's speed (default: this CPU)"
    add("--gpu-gb", type=between("--gpu-gb", float, 0.1, 1e5), metavar="N", help=help_text)
    help_text = "where the original model may be already"
    add("--results", type=Path, default=Path("results"), metavar="DIR", help=help_text)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    check_yaml(args.config)
    values = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    settings = resolve(values, places_of([args.config], REPOSITORY))

    from radquant.checkpoints.loading import DTYPES
    from radquant.checkpoints.model_sizes import sizes_of
    from radquant.checkpoints.planned import NotKnown, find_model
    from radquant.generation import run_plan

    sizes, unknown = None, []
    with TemporaryDirectory() as scratch:
        try:
            directory = find_model(settings, args.results, Path(scratch))
            sizes = sizes_of(directory, settings.model.trust_remote_code)
        except NotKnown as error:
            unknown.append(str(error))
    if args.gpu_gb is None:
        dtype = DTYPES.get(settings.compute.dtype, DTYPES["float32"])
        machine = run_plan.this_machine(settings.compute.threads, dtype)
    else:
        machine = run_plan.a_gpu(args.gpu_gb)
    rows = run_plan.plan(settings, sizes, args.results, machine)
    place = next(each for each in (args.results, *args.results.resolve().parents) if each.is_dir())
    free = shutil.disk_usage(place).free
    print(run_plan.told(rows, sizes, settings, machine, unknown, free))


if __name__ == "__main__":
    run(main)
