#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The numbers of lib/base/elementary.c and of its test, by Python's decimal numbers of 800 digits.

    make_elementary.py tables              prints the tables and constants of lib/base/elementary.c
    make_elementary.py values              prints tests/elementary_values.h
    make_elementary.py check SOURCE        are both in the source folder as printed here?
"""
import math
import random
import struct
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

getcontext().prec = 800
LN2, LN10 = Decimal(2).ln(), Decimal(10).ln()


def series(first, ratio):
    """first (1 + ratio(1) (1 + ratio(2) (1 + ...)))"""
    total, term, n = Decimal(0), first, 1
    while abs(term) > Decimal(10) ** -780:
        total += term
        term *= ratio(n)
        n += 1
    return total


def atan_of_1_over(q):
    q = Decimal(q)
    return sum((-1) ** n / ((2 * n + 1) * q ** (2 * n + 1)) for n in range(int(800 / (2 * math.log10(q))) + 1))


PI = 4 * (4 * atan_of_1_over(5) - atan_of_1_over(239))  # Machin


def erfc(x):  # erf x = 2 / sqrt(pi) e^(-x^2) (x + 2 x^3 / 3 + 4 x^5 / (3 5) + ...)
    return 1 - 2 / PI.sqrt() * (-x * x).exp() * series(x, lambda n: 2 * x * x / (2 * n + 1))


def cosine(turns):
    x = 2 * PI * turns
    return series(Decimal(1), lambda n: -x * x / ((2 * n - 1) * (2 * n)))


def sine(turns):
    x = 2 * PI * turns
    return series(x, lambda n: -x * x / ((2 * n) * (2 * n + 1)))


FUNCTIONS = {
    'exp': lambda x: x.exp(), 'expm1': lambda x: x.exp() - 1, 'ln': lambda x: x.ln(), 'log10': lambda x: x.ln() / LN10,
    'pow': lambda x, y: (y * x.ln()).exp(), 'tanh': lambda x: 1 - 2 / ((2 * x).exp() + 1), 'erfc': erfc,
    'cosine': cosine, 'sine': sine,
}


def text(x):  # as C has it, without the zeros at the end
    mantissa, exponent = float(x).hex().split('p')
    return '0' if x == 0 else (mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa) + 'p' + exponent


def round_to(value, grid):  # the nearest multiple of 2^grid, as a float
    return float((value * Decimal(2) ** -grid).to_integral_value()) * 2.0 ** grid


def bits_of(value, bits):  # its first bits, as a float
    return round_to(value, math.frexp(float(value))[1] - bits)


def parts(value, hi=None):
    hi = float(value) if hi is None else hi
    return text(hi), text(float(value - Decimal(hi)))


# ---- lib/base/elementary.c -------------------------------------------------------------------------------------


def from_bits(bits):
    return struct.unpack('<d', struct.pack('<Q', bits))[0]


def inverse_of(j, first=0x3fe5c00000000000):
    low, high = (Decimal(from_bits(first + (i << 47))) for i in (j, j + 1))
    if low < 1 < high:
        return 256
    return min(range(128, 512), key=lambda m: max(abs(low * m / 256 - 1), abs(high * m / 256 - 1)))


def tables():
    yield from ('{%s, %s}' % parts((LN2 * j / 32).exp()) for j in range(32))
    for j in range(32):
        m = inverse_of(j)
        value = (Decimal(256) / m).ln()
        yield '{%s, %s, %s}' % (repr(m / 256).removesuffix('.0'), *parts(value, round_to(value, -42)))
    for j in range(13):
        x = Decimal(j) / 4
        value = (x * x).exp() * erfc(x)
        yield '{%s, %s}' % parts(value, bits_of(value, 48))
    root = 2 / PI.sqrt()
    yield '{%s, %s}' % parts(root)
    yield '{%s, %s}' % parts(1 / LN10)
    yield text(32 / LN2)
    for value, hi in [(LN2 / 32, round_to(LN2 / 32, -42)), (LN2, round_to(LN2, -42)), (2 * PI, bits_of(2 * PI, 27))]:
        yield from parts(value, hi)


# ---- tests/elementary_values.h ---------------------------------------------------------------------------------


def arguments():
    draw = random.Random(1)
    uniform = draw.uniform
    yield 'exp', [-745.0, -744.5, -710.0, -708.4, -87.0, -1.0, -1e-3, 1e-18, 0.3, 1.0, 88.0, 709.7] + [uniform(-700, 700) for _ in range(8)]
    yield 'expm1', [-36.5, -1.0, -0.25, -0.2, -1e-9, 5e-324, 1e-3, 0.2499, 0.2501, 37.5, 41.0] + [uniform(-2, 2) for _ in range(8)]
    positive = [5e-324, 1e-310, 2.3e-308, 1e-30, 0.1, 0.5, 0.99, 1 - 2.0**-53, 1 + 2.0**-52, 1.01, 2.0, 10.0, 1e10, 1.7e308]
    yield 'ln', positive + [uniform(0.5, 2) for _ in range(8)]
    yield 'log10', positive + [0.001, 1e22] + [uniform(0, 1) for _ in range(6)]
    yield 'pow', [(0.9, 1e3), (0.999, 1e5), (1 + 2.0**-40, 2.0**49), (1 - 2.0**-53, 2.0**62), (2.0, 0.5), (10.0, -4.9), (1e-300, 1.05),
                  (5e-324, 0.25), (1.7e308, 0.99)] + [(uniform(0, 3), uniform(-50, 50)) for _ in range(8)]
    yield 'tanh', [-19.0, -3.0, -0.551, -0.549, -1e-8, 5e-324, 0.1, 0.3, 1.0] + [uniform(-3, 3) for _ in range(8)]
    yield 'erfc', [-5.0, -1.0, -1e-9, 1e-300, 0.1, 0.47, 0.62, 1.124, 1.126, 3.12, 3.13, 10.0, 26.0, 26.9, 27.2] + [uniform(-3, 5) for _ in range(8)]
    turns = [1e-300, 1e-9, 0.1, 0.1249, 0.1251, 1 / 3, 0.4999999, 0.6, 0.75 + 2.0**-53, 0.9, 1 - 2.0**-53]
    yield 'cosine', turns + [uniform(0, 1) for _ in range(8)]
    yield 'sine', turns + [uniform(0, 1) for _ in range(8)]


def values():
    yield '/* SPDX-License-Identifier: MIT'
    yield ' *'
    yield ' * Made by reference/make_elementary.py: function, argument, pow\'s second one, the double next to the value, and'
    yield ' * what is left of the value in units of its last place. */'
    for name, xs in arguments():
        for x in xs:
            pair = x if isinstance(x, tuple) else (x,)
            value = FUNCTIONS[name](*map(Decimal, pair))
            near = float(Fraction(value))
            yield '{%s, %s, %s, %s, %.3f},' % (name.upper(), text(pair[0]), text(pair[1]) if len(pair) > 1 else '0', text(near),
                                             (value - Decimal(near)) / Decimal(math.ulp(near)))


def check(source):
    with open(source + '/lib/base/elementary.c') as file:
        code = file.read()
    missing = [number for number in tables() if number not in code]
    for number in missing:
        print('not in lib/base/elementary.c:', number)
    with open(source + '/tests/elementary_values.h') as file:
        same = file.read() == '\n'.join(values()) + '\n'
    if not same:
        print('tests/elementary_values.h is not what `make_elementary.py values` prints')
    return 1 if missing or not same else 0


if sys.argv[1:2] == ['check'] and len(sys.argv) == 3:
    sys.exit(check(sys.argv[2]))
if sys.argv[1:] not in (['tables'], ['values']):
    sys.exit(__doc__)
print('\n'.join(tables() if sys.argv[1] == 'tables' else values()))
