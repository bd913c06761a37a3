"""Which functions count as gaps that a student left: those that can return nothing but None."""

import ast

import pytest

from course.gaps import marked

GAPS = [
    "pass",
    '"""What it should do."""',
    "return None",
    "z = None\n    return z",
    '"""What."""\n    x, y = None, None\n    return x, y',
    "loss = None\n    log = {'loss': loss}\n    return loss, log",
    "assert a\n    pass\n    return z",
]
NO_GAPS = [
    "return a",
    "a = None\n    return a",
    "return torch",
    "print(a)",
    "x, y = None, 3\n    return x, y",
    "x, y = a\n    return x, y",
    "x = None\n    x += a\n    return x",
    "x = None\n    if a: x = 1\n    return x",
    "x = None\n    (x := a)\n    return x",
    "x = None\n    for x in a: pass\n    return x",
    "x = None\n    with a as x: pass\n    return x",
    "def f(): return 1\n    return f",
    "z = None\n    raise NotImplementedError\n    return z",
]


@pytest.mark.parametrize(("body", "is_gap"), [*((body, True) for body in GAPS), *((body, False) for body in NO_GAPS)])
def test_what_is_a_gap(body, is_gap):
    module = marked(ast.parse(f"import torch\ndef sample(a):\n    {body}\ndef set_size(size):\n    pass\n"))
    assert isinstance(module.body[1].body[0], ast.Raise) == is_gap
    assert isinstance(module.body[2].body[0], ast.Pass), "functions of other names may do nothing"
