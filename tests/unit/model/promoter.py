"""A trainer in a process of its own: `python promoter.py URL` promotes each `DETECTOR VERSION TOKEN` it is told."""

import sys

from model.errors import StaleToken
from model.registry import Registry


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    registry = Registry(sys.argv[1])
    say("ready")
    for line in sys.stdin:
        name, version, token = line.split()
        try:
            registry.promote(name, version, token=int(token))
            say("promoted")
        except StaleToken:
            say("stale")


if __name__ == "__main__":
    main()
