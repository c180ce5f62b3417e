import sys

CELLS, LARGE, PER_SCREEN = 15, 4, 2


def screens(small: int, large: int) -> int:
    count = -(-large // PER_SCREEN)
    left = small - (count * CELLS - large * LARGE)
    return count + max(0, -(-left // CELLS))


def main():
    read = sys.stdin.readline
    for _ in range(int(read())):
        sys.stdout.write(f"{screens(*map(int, read().split()))}\n")


main()
sys.exit(0)
