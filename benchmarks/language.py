"""How English the columns of a table are, as the check of the references sees it.

python benchmarks/language.py results/data/raw.parquet findings impression indication
"""

import argparse

from radquant.files import read_table
from radquant.scoring.language import language_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", help="a table that the workflow wrote (.csv, .parquet)")
    parser.add_argument("columns", nargs="+", help="its columns of texts")
    options = parser.parse_args()
    table = read_table(options.table, options.columns)
    print("| column | texts | judged | known words | not English | passes |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for column in options.columns:
        texts = table[column].fillna("")
        found = language_of(texts)
        cells = [column, f"{len(texts):,}", f"{found.judged:,}", f"{found.share:.1%}"]
        cells += [f"{len(found.foreign):,}", "yes" if found.english else "no"]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
