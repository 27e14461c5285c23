"""Writes the handwritten digits that `examples/ril_qwen` embeds.

    pip install -r scripts/reference/requirements.txt      (scikit-learn 1.9.1)
    python scripts/reference/digits.py [OUT]

OUT is examples/ril_qwen/assets/digits.txt unless given. One line a digit, in scikit-learn's order: the label, a space,
and 64 characters 0-9a-g, the ink 0 to 16 of the 8x8 pixels row by row. Nothing is drawn at random.
"""

import sys
from pathlib import Path

from sklearn.datasets import load_digits

OUT = Path(__file__).parents[2] / "examples/ril_qwen/assets/digits.txt"
ALPHABET = "0123456789abcdefg"


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    digits = load_digits()
    lines = [f"{label} {''.join(ALPHABET[int(ink)] for ink in row)}\n" for label, row in zip(digits.target, digits.data)]
    out.write_text("".join(lines), encoding="ascii", newline="\n")
    print(f"{out}: {len(lines)} digits")


if __name__ == "__main__":
    main()
