"""Write config/schema.yaml and the tables in docs/ from the settings."""

from pathlib import Path

from radquant.cli import run
from radquant.files import write_text
from radquant.settings.documents import documents


def main() -> None:
    for path, text in documents(Path(__file__).parents[3]):
        write_text(path, text)
        path.chmod(0o644)


if __name__ == "__main__":
    run(main)
