"""Reads one LaTeX or plain-text expression into sympy, exactly.

Decimals are read as exact rationals and degrees as pi/180. Nothing large is evaluated: powers, factorials and lengths
are bounded before sympy sees them. What has no rule here (sums, integrals, limits, max, gcd ...) is read by
latex2sympy2_extended, the grammar of math-verify.
"""

import re

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

MAX_LENGTH, MAX_DEPTH, MAX_BITS, MAX_FACTORIAL = 1000, 40, 400_000, 10_000
MAX_TERMS, MAX_EXPONENT, MAX_ANGLE = 10_000, sympy.Integer(10**9), sympy.Integer(10**300)

_NUMBER_FORM = r"\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(_NUMBER_FORM)
_TOKEN = re.compile(rf"\s*({_NUMBER_FORM}|\\[A-Za-z]+|\\[{{}}|]|[A-Za-z]'*|[-+*/^_!()\[\]{{}}|])\s*")
_BEYOND = re.compile(r"\\(?:sum|prod|i?int|oint|lim|max|min|gcd|lcm|det|bmod|pmod|mod|begin)(?![A-Za-z])")
_DIVISOR_OF_NAMES = re.compile(r"\\(?:gcd|lcm)\s*[({][^(){}]*[A-Za-z]")
_DERIVATIVE = re.compile(r"d(\^\{?\d\}?)?([A-Za-z\\][^-+*/()]*)?")
_TIMES, _OVER = ("*", r"\cdot", r"\times", r"\ast"), ("/", r"\div")
_FUNCTIONS = {
    r"\sin": sympy.sin, r"\cos": sympy.cos, r"\tan": sympy.tan, r"\cot": sympy.cot, r"\sec": sympy.sec,
    r"\csc": sympy.csc, r"\arcsin": sympy.asin, r"\arccos": sympy.acos, r"\arctan": sympy.atan, r"\sinh": sympy.sinh,
    r"\cosh": sympy.cosh, r"\tanh": sympy.tanh, r"\ln": sympy.log, r"\exp": sympy.exp,
}  # fmt: skip
_LOGARITHMS = (r"\log", r"\lg")
_GROWING = (r"\exp", r"\sinh", r"\cosh", r"\tanh")
_INVERSE = {r"\sin": sympy.asin, r"\cos": sympy.acos, r"\tan": sympy.atan}
_ACCENTS = (r"\dot", r"\ddot", r"\bar", r"\hat", r"\tilde", r"\vec", r"\overline", r"\overrightarrow", r"\mathbb")
_GREEK = frozenset(
    r"\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \vartheta \iota \kappa \lambda \mu \nu \xi "
    r"\rho \sigma \tau \upsilon \phi \varphi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Phi \Psi "
    r"\Omega \hbar \ell \mho \triangle \angle".split()
)
_STARTS_FACTOR = frozenset(
    (*_FUNCTIONS, *_GREEK, *_ACCENTS, *_LOGARITHMS, r"\frac", r"\sqrt", r"\binom", r"\pi", r"\infty")
)
_BRACKETS = {"(": ")", "[": "]", "{": "}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", "|": "|", r"\lvert": r"\rvert"}


SYMPY_GAVE_UP = (RecursionError, NotImplementedError, ArithmeticError, ValueError, TypeError, AttributeError)
"""What sympy raises on expressions that it cannot evaluate or compare; which of them can depend on its cache."""


class UnreadableMath(Exception):
    """An expression outside what is read or safely evaluated; the message says why."""


class UndefinedMath(UnreadableMath):
    """An expression that is read and has no value."""


def read(text: str) -> sympy.Expr:
    """The expression of a text, with e the base of logarithms and i the imaginary unit. Raises UnreadableMath."""
    if len(text) > MAX_LENGTH:
        raise UnreadableMath(f"{len(text)} characters, more than {MAX_LENGTH}")
    if _BEYOND.search(text):
        return _read_by_latex2sympy(text)
    reader = _ExpressionReader(text)
    try:
        value = reader.sum()
    except RecursionError as error:
        raise UnreadableMath("signs or commands nested too deep") from error
    if reader.token:
        raise UnreadableMath(f"{reader.token!r} has no place in {text!r}")
    return value


def _read_by_latex2sympy(text: str) -> sympy.Expr:
    """What has no rule of ours. Degrees, primes and accents are read otherwise there, so that they are refused."""
    if "'" in text or r"\circ" in text or r"\text" in text or "%" in text:
        raise UnreadableMath(f"a sum, integral or the like with primes, degrees or words in {text!r}")
    if _DIVISOR_OF_NAMES.search(text):  # the grammar reads \gcd(a, b) as 1
        raise UnreadableMath(f"a greatest divisor or least multiple of names in {text!r}")
    text = re.sub(r"\\bmod(?![A-Za-z])", r"\\mod", text)
    text = re.sub(r"\\frac\s*(\w)", r"\\frac{\1}", text)
    text = re.sub(r"(\\frac\s*\{[^{}]*\})\s*(\w)", r"\1{\2}", text)
    try:
        value = latex2sympy(text, is_real=True, conversion_config=ConversionConfig(lowercase_symbols=False))
    except Exception as error:  # the grammar raises plain Exception on any syntax that it does not know
        raise UnreadableMath(f"not read by latex2sympy: {text!r}") from error
    if not isinstance(value, sympy.Expr):
        raise UnreadableMath(f"{text!r} is a {type(value).__name__}, not one expression")
    limits = (limits for series in value.atoms(sympy.Sum, sympy.Product) for limits in series.limits)
    if any((last - first).is_Integer and last - first > MAX_TERMS for _, first, last in limits):
        raise UnreadableMath(f"a sum or product of more than {MAX_TERMS} terms")
    for count in value.atoms(sympy.factorial, sympy.binomial):
        _check_whole(type(count).__name__, *count.args)
    # The grammar writes some binomials as quotients of these; sympy cannot rebuild one of something infinite.
    if any(gamma.has(sympy.oo, -sympy.oo) for gamma in value.atoms(sympy.gamma)):
        raise UnreadableMath(f"a factorial or binomial of something infinite in {text!r}")
    plain = {symbol: sympy.I if symbol.name == "i" else sympy.Symbol(symbol.name) for symbol in value.free_symbols}
    # The variable of a sum or integral must not be taken for a free one of the same name.
    value = value.as_dummy()
    return value.xreplace(plain | {number: sympy.Rational(str(number)) for number in value.atoms(sympy.Float)})


class _ExpressionReader:
    """Recursive descent over the tokens of one expression; every method leaves `token` at the first unread one."""

    def __init__(self, text: str) -> None:
        self.text, self.depth, self.place = text, 0, 0
        self.tokens: list[str] = _TOKEN.findall(text)
        if unknown := _TOKEN.sub("", text):
            raise UnreadableMath(f"{unknown[0]!r} has no meaning in {text!r}")

    @property
    def token(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def ahead(self, steps: int) -> str:
        return self.tokens[self.place + steps] if self.place + steps < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.token
        if not token or (wanted and token != wanted):
            raise UnreadableMath(f"{wanted or 'more'} is missing in {self.text!r}")
        self.place += 1
        return token

    def ambiguous(self, what: str) -> UnreadableMath:
        return UnreadableMath(f"{what} in {self.text!r} can mean two things")

    def sum(self) -> sympy.Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableMath(f"brackets more than {MAX_DEPTH} deep")
        value = self.product()
        while self.token in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        self.depth -= 1
        return value

    def product(self) -> sympy.Expr:
        value = self.signed()
        while self.token:
            if self.token in _TIMES:
                self.take()
                value = value * self.signed()
            elif self.token in _OVER:
                self.take()
                value = _quotient(value, self.signed())
            elif self.starts_factor():
                value = value * self.factor()
            else:
                break
        return value

    def signed(self) -> sympy.Expr:
        if self.token in ("+", "-"):
            return -self.signed() if self.take() == "-" else self.signed()
        return self.factor()

    def starts_factor(self) -> bool:
        if _NUMBER.fullmatch(self.token):
            if self.tokens[self.place - 1] in (")", "]", "}"):
                return True
            raise UnreadableMath(f"a number right behind another factor in {self.text!r}")
        closes = self.token == "|" and "|" in self.tokens[: self.place]
        return (self.token in _BRACKETS and not closes) or self.token[0].isalpha() or self.token in _STARTS_FACTOR

    def factor(self) -> sympy.Expr:
        value = self.atom()
        while self.token in ("!", "^"):
            sign = self.take()
            if self.token == sign:
                raise self.ambiguous(f"{sign}{sign}")
            if sign == "!":
                _check_whole("factorial", value)
                value = sympy.factorial(value)
            elif self.token == r"\circ":
                self.take()
                value = value * sympy.pi / 180
            else:
                value = _power(value, self.argument())
                if self.token == "^":
                    raise self.ambiguous("two exponents of one base")
        return value

    def argument(self) -> sympy.Expr:
        """What ^, \\sqrt and the like apply to: a group, or one token with its sign."""
        if self.token == "-":
            self.take()
            return -self.argument()
        return self.group("{") if self.token == "{" else self.atom()

    def digit(self) -> sympy.Expr:
        """An argument of \\frac: of 12 only the 1."""
        if self.token.isdigit() and len(self.token) > 1:
            self.tokens[self.place : self.place + 1] = [self.token[0], self.token[1:]]
        return self.argument()

    def group(self, opening: str) -> sympy.Expr:
        self.take(opening)
        value = self.sum()
        self.take(_BRACKETS[opening])
        return value

    def raw_group(self) -> str:
        """The tokens of the group or the single token that follows, as they stand."""
        if self.token != "{":
            return self.take()
        start, depth = self.place + 1, 0
        while True:
            depth += {"{": 1, "}": -1}.get(self.take(), 0)
            if depth == 0:
                return "".join(self.tokens[start : self.place - 1])

    def atom(self) -> sympy.Expr:
        token = self.token
        if _NUMBER.fullmatch(token):
            return self.number()
        if token in _BRACKETS:
            wrap = {"|": sympy.Abs, r"\lvert": sympy.Abs, r"\lfloor": sympy.floor, r"\lceil": sympy.ceiling}.get(token)
            return wrap(self.group(token)) if wrap else self.group(token)
        if token in _FUNCTIONS or token in _LOGARITHMS:
            return self.function()
        if token[:1].isalpha() or token in _GREEK or token in _ACCENTS:
            return self.symbol()
        self.take()
        match token:
            case r"\frac":
                return self.fraction()
            case r"\sqrt":
                index = self.group("[") if self.token == "[" else sympy.Integer(2)
                return _power(self.argument(), _quotient(sympy.S.One, index))
            case r"\binom":
                n, k = self.digit(), self.digit()
                _check_whole("binomial", n, k)
                return sympy.binomial(n, k)
            case r"\pi":
                return sympy.pi
            case r"\infty":
                return sympy.oo
        raise UnreadableMath(f"{token!r} is not known in {self.text!r}")

    def number(self) -> sympy.Expr:
        token = self.take()
        value = _exact(token)
        if self.token == r"\overline" and "." in token:
            self.take()
            period = self.raw_group()
            if not period.isdigit():
                raise UnreadableMath(f"{period!r} is no period of a decimal")
            places = len(token.partition(".")[2])
            value += sympy.Rational(int(period), (10 ** len(period) - 1) * 10**places)
        elif token.isdigit() and self.token == r"\frac":
            value += self.mixed_part()
        return value

    def mixed_part(self) -> sympy.Rational:
        """The proper fraction of whole numbers behind a whole number, as in 1\\frac{4}{5}; 0 where another follows."""
        start = self.place
        self.take()
        if self.token.isdigit() and len(self.token) == 2:
            above, below = self.take()
        else:
            above, below = self.raw_group(), self.raw_group()
        if not (above.isdigit() and below.isdigit()):
            self.place = start
            return sympy.S.Zero
        if int(above) >= int(below):
            raise self.ambiguous("a whole number before an improper fraction")
        return sympy.Rational(int(above), int(below))

    def fraction(self) -> sympy.Expr:
        start = self.place
        if self.token == "{":
            above = self.raw_group()
            below = self.raw_group() if self.token == "{" else ""
            if _DERIVATIVE.fullmatch(above) and _DERIVATIVE.fullmatch(below) and len(below) > 1:
                return sympy.Symbol(f"{above}/{below}".replace("{", "").replace("}", ""))
            self.place = start
        return _quotient(self.digit(), self.digit())

    def function(self) -> sympy.Expr:
        name, base, power = self.take(), None, None
        while self.token in ("_", "^"):
            if self.take() == "_":
                base = self.argument()
            else:
                power = self.argument()
        if name in _LOGARITHMS and base is None:
            base = sympy.Integer(10)
        argument = self.group(self.token) if self.token in ("(", "[", "{") else self.open_argument()
        if name not in (*_LOGARITHMS, r"\ln"):
            _check_size(argument, MAX_EXPONENT if name in _GROWING else MAX_ANGLE)
        if power == -1 and name in _INVERSE:
            return _INVERSE[name](argument)
        if base is not None and name not in _LOGARITHMS:
            raise UnreadableMath(f"{name} with an index")
        value = sympy.log(argument) / sympy.log(base) if base is not None else _FUNCTIONS[name](argument)
        return value if power is None else _power(value, power)

    def open_argument(self) -> sympy.Expr:
        """\\sin 2x \\cos y: factors up to the next function, sign, bracket or slash."""
        value = self.signed() if self.token in ("+", "-") else self.factor()
        stop = (*_FUNCTIONS, *_LOGARITHMS, *_TIMES, *_OVER, "(", "[", "+", "-")
        while self.token and self.token not in stop and self.starts_factor():
            value = value * self.factor()
        return value

    def symbol(self) -> sympy.Expr:
        name = self.take()
        if name in _ACCENTS:
            name = f"{name}{{{self.raw_group()}}}"
        if self.token == "_":
            self.take()
            name = f"{name}_{self.raw_group()}"
        # f(2) and u(t) are values of a function; n(n+1) is a product.
        if self.token == "(" and self.ahead(2) == ")" and (self.ahead(1)[:1].isalnum() or self.ahead(1) in _GREEK):
            name = f"{name}({self.ahead(1)})"
            self.place += 3
        return {"e": sympy.E, "i": sympy.I}.get(name) or sympy.Symbol(name)


def _exact(number: str) -> sympy.Rational:
    """A decimal, with or without exponent, as an exact rational. Raises UnreadableMath beyond 10^(+-5000)."""
    digits, _, exponent = number.lower().partition("e")
    if len(exponent) > 5 or abs(int(exponent or 0)) > 5000:
        raise UnreadableMath(f"exponent of {number[:40]} too large")
    whole, _, places = digits.partition(".")
    shift = int(exponent or 0) - len(places)
    value = sympy.Integer(int(whole + places or "0"))
    return value * 10**shift if shift >= 0 else sympy.Rational(value, 10**-shift)


def _quotient(a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    if b == 0:
        raise UndefinedMath("a division by zero")
    return a / b


def _power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    evaluated = exponent.is_Integer or (exponent.is_Rational and base.is_Rational)
    size = abs(exponent.p) if evaluated else 0
    if base.is_Rational and base not in (0, 1, -1):
        bits = max(int(abs(base.p)).bit_length(), int(base.q).bit_length())
        if size * bits > MAX_BITS:
            raise UnreadableMath(f"a power of more than {MAX_BITS} bits")
    elif size > MAX_FACTORIAL:
        raise UnreadableMath(f"an exponent beyond {MAX_FACTORIAL}")
    _check_size(exponent, MAX_EXPONENT)
    if base == 0 and exponent.is_negative:
        raise UndefinedMath("a division by zero")
    return base**exponent


def _check_size(value: sympy.Expr, limit: sympy.Integer) -> None:
    """Refuses a number whose size alone makes functions of it impossible to evaluate."""
    if value.is_number and value.is_finite and sympy.Abs(value.evalf(5)) > limit:
        raise UnreadableMath(f"an exponent or an angle beyond {limit.evalf(1)}")


def _check_whole(function: str, *values: sympy.Expr) -> None:
    if any(value.is_number and not (value.is_Integer and 0 <= value <= MAX_FACTORIAL) for value in values):
        raise UnreadableMath(f"a {function} of something that is no whole number up to {MAX_FACTORIAL}")
