def profit(n, a, b):
    k = max(0, min(n, b - a))
    return k * (2 * b - k + 1) // 2 + (n - k) * a


input_lines = open(0).read().strip().splitlines()
answers = [profit(*map(int, line.split())) for line in input_lines[1:]]
print(*answers, sep="\n")
