"""Small changes of a module's code: each is a mutant, which a test has to notice."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div, ast.Mult),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.MatMult: (ast.Mult,),
}
TWINS = {
    "min": "max",
    "max": "min",
    "sum": "mean",
    "mean": "sum",
    "add_": "sub_",
    "sub_": "add_",
    "mul_": "div_",
    "div_": "mul_",
    "any": "all",
    "all": "any",
}

# parts of nodes that are not mutated: what is said of types, what is assigned to, what errors say
LEFT_OUT = ("annotation", "returns", "decorator_list", "bases", "exc", "ctx", "op", "ops", "target", "targets")


@dataclass(frozen=True)
class Mutant:
    """One change of one function.

    Attributes:
        function: qualified name within the module; empty for what is outside every function.
        line: where it is.
        before: the expression or statement.
        after: what stands in its place; empty where it was taken out.
        code: the module with the change.
        is_in_body: of a function, so that the module's own values stay as they are.
        lines: of the statement that holds it.
    """

    function: str
    line: int
    before: str
    after: str
    code: CodeType
    is_in_body: bool
    lines: range

    @property
    def change(self) -> str:
        """What was changed into what, on one line."""
        return f"{self.before} → {self.after or '(nothing)'}"


def mutants(source: str, path: str) -> Iterator[Mutant]:
    """All mutants of a module, in the order of its lines."""
    tree = ast.parse(source)
    for place in _places(tree, "", False, range(0)):
        old = place.get()
        for new in _replacements(old):
            ast.fix_missing_locations(ast.copy_location(new, old))
            shown = place.parent if isinstance(old, ast.Constant) else old  # a number alone tells little
            before = _text(shown)
            place.set(new)
            code = compile(tree, path, "exec")
            after = "" if isinstance(new, ast.Pass) else _text(shown if shown is place.parent else new)
            place.set(old)
            yield Mutant(place.function, old.lineno, before, after, code, place.is_in_body, place.lines)


@dataclass(frozen=True)
class _Place:
    """Where a node hangs in its parent."""

    parent: ast.AST
    field: str
    index: int | None
    function: str
    is_in_body: bool
    lines: range

    def get(self) -> ast.AST:
        value = getattr(self.parent, self.field)
        return value if self.index is None else value[self.index]

    def set(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def _places(parent: ast.AST, function: str, is_in_body: bool, lines: range) -> Iterator[_Place]:
    """Every place that may be mutated: no docstrings, annotations, imports, messages of errors."""
    if isinstance(parent, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{parent.name}".lstrip(".")
    for field, value in ast.iter_fields(parent):
        if field in LEFT_OUT:
            continue
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or _is_left_out(node):
                continue
            is_below = is_in_body or (isinstance(parent, ast.FunctionDef) and field == "body")
            spanned = range(node.lineno, (node.end_lineno or node.lineno) + 1) if isinstance(node, ast.stmt) else lines
            yield _Place(parent, field, index, function, is_below, spanned)
            yield from _places(node, function, is_below, spanned)


def _is_left_out(node: ast.AST) -> bool:
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    if is_docstring or (isinstance(node, ast.keyword) and node.arg == "device"):
        return True
    return isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert | ast.arg)


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=right):
            yield from (ast.Compare(left, [new()], right) for new in COMPARISONS[type(op)])
        case ast.BinOp(left=left, op=op, right=right):
            yield from (ast.BinOp(left, new(), right) for new in ARITHMETIC.get(type(op), ()))
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            yield from (values[0], values[-1])
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Constant(value=value):
            yield from (ast.Constant(new) for new in _other_constants(value))
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.Call():
            yield from _changed_calls(node)
        case ast.Subscript(value=value, slice=ast.Slice()):
            yield value
        case ast.stmt():
            yield from _changed_statements(node)


def _other_constants(value: object) -> tuple[bool | int | float, ...]:
    match value:
        case bool():
            return (not value,)
        case int():
            return value + 1, value - 1
        case float():
            return (value * 2, -value) if value else (1.0,)
    return ()


def _changed_calls(node: ast.Call) -> Iterator[ast.AST]:
    """The object in place of its method, the argument in place of the function, a twin, an option left out."""
    own, is_method = node.func, isinstance(node.func, ast.Attribute)
    if isinstance(own, ast.Attribute):
        if not _goes_to_device(node):
            yield own.value
        if own.attr in TWINS:
            yield ast.Call(ast.Attribute(own.value, TWINS[own.attr], ast.Load()), node.args, node.keywords)
    elif isinstance(own, ast.Name):
        yield from (value for value in node.args[:2] if not isinstance(value, ast.Starred))
        if own.id in TWINS:
            yield ast.Call(ast.Name(TWINS[own.id], ast.Load()), node.args, node.keywords)
    if is_method and own.attr != "to":  # which, without arguments, is the object again
        for index in range(len(node.args)):
            yield ast.Call(own, [*node.args[:index], *node.args[index + 1 :]], node.keywords)
    for index, keyword in enumerate(node.keywords):
        if keyword.arg == "device":  # the default's, in tests on a CPU
            continue
        yield ast.Call(own, node.args, [*node.keywords[:index], *node.keywords[index + 1 :]])


def _goes_to_device(node: ast.Call) -> bool:
    """Whether the call is ``x.to(device)``, which does nothing on a CPU."""
    if not isinstance(node.func, ast.Attribute) or node.func.attr != "to" or node.keywords:
        return False
    return ast.unparse(node.args[0]).rpartition(".")[2] == "device"


def _changed_statements(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.If(body=body, orelse=orelse):
            if not isinstance(body[0], ast.Raise):  # which is taken out, too
                yield ast.If(ast.Constant(False), body, orelse)
            yield ast.If(ast.Constant(True), body, orelse)
        case ast.AugAssign(target=target, op=op, value=value):  # x += y → x = y, x -= y, nothing
            yield ast.Assign([copy.deepcopy(target)], value)
            yield from (ast.AugAssign(target, new(), value) for new in ARITHMETIC.get(type(op), ()))
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Expr() | ast.Raise() | ast.Continue():
            yield ast.Pass()


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 160 else f"{text[:157]}..."
