"""What an output says clinically otherwise than the original model's output of the same report.

Everything is read from two annotations in RadGraph's schema, the lexicon's or RadGraph's own, and
from the texts.
"""

# Kinds of change, the most harmful first: the order in which reports and examples are listed.
KINDS = {
    "lost": "definitely present before, not mentioned now",
    "negated": "definitely present before, denied now",
    "invented": "denied or not mentioned before, definitely present now",
    "side": "left became right, or one side both",
    "measurement": "the number of a measurement changed",
    "asserted": "uncertain before, definitely present now",
    "hedged": "definitely present before, uncertain now",
    "severity": "mild became severe, and the like",
    "prior": "compares with an earlier examination that the input does not speak of",
}
# What is wrong with an output by itself.
FLAGS = ("empty", "prompt echo", "repetition", "cut off")
