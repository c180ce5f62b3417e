import sys

input = sys.stdin.readline


def removals(a):
    return min(i + sum(later > first for later in a[i + 1 :]) for i, first in enumerate(a))


def main():
    for _ in range(int(input())):
        input()
        print(removals([*map(int, input().split())]))


if __name__ == "__main__":
    main()
