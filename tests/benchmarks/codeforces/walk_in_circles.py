STEPS = {"N": (0, 1), "E": (1, 0), "S": (0, -1), "W": (-1, 0)}


def meets(a, b, s):
    x = y = 0
    for _ in range(100):
        for move in s:
            x, y = x + STEPS[move][0], y + STEPS[move][1]
            if (x, y) == (a, b):
                return True
    return False


for _ in range(int(input())):
    _, a, b = map(int, input().split())
    print(["NO", "YES"][meets(a, b, input().strip())])
