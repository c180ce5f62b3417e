"""Draw many samples per problem from a base model and from its RL-trained counterpart, verify them, and compare."""

import sys

from rlvr_limit.cli import main

if __name__ == "__main__":
    sys.exit(main())
