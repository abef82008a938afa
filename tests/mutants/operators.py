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
    "rows": "columns",
    "columns": "rows",
    "mean_": "sum_",
}


@dataclass(frozen=True)
class Mutant:
    """One change of one function.

    Attributes:
        function: qualified name within the module; empty for what is outside every function.
        line: where it is.
        before: the expression or statement.
        after: what stands in its place; empty where it was taken out.
        code: the module with the change.
    """

    function: str
    line: int
    before: str
    after: str
    code: CodeType

    @property
    def change(self) -> str:
        """What was changed into what, on one line."""
        return f"{self.before} → {self.after or '(nothing)'}"


def mutants(source: str, path: str) -> Iterator[Mutant]:
    """All mutants of a module, in the order of its lines."""
    tree = ast.parse(source)
    for place in _places(tree, ""):
        old = place.get()
        for new in _replacements(old):
            ast.fix_missing_locations(ast.copy_location(new, old))
            place.set(new)
            code = compile(tree, path, "exec")
            place.set(old)
            yield Mutant(place.function, old.lineno, _text(old), "" if isinstance(new, ast.Pass) else _text(new), code)


@dataclass(frozen=True)
class _Place:
    """Where a node hangs in its parent."""

    parent: ast.AST
    field: str
    index: int | None
    function: str

    def get(self) -> ast.AST:
        value = getattr(self.parent, self.field)
        return value if self.index is None else value[self.index]

    def set(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def _places(parent: ast.AST, function: str) -> Iterator[_Place]:
    """Every place that may be mutated: no docstrings, annotations, imports, messages of errors."""
    if isinstance(parent, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{parent.name}".lstrip(".")
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list", "bases", "exc", "ctx", "op", "ops", "type_params"):
            continue
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or _is_left_out(node):
                continue
            yield _Place(parent, field, index, function)
            yield from _places(node, function)


def _is_left_out(node: ast.AST) -> bool:
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert | ast.arg)


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
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(value=float(value)):
            yield from (ast.Constant(value * 2), ast.Constant(-value if value else 1.0))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.Call():
            yield from _changed_calls(node)
        case ast.Subscript(value=value, slice=ast.Slice()):
            yield value
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Raise() | ast.Continue():
            yield from _changed_statements(node)
        case ast.If(test=test, body=body, orelse=orelse):
            yield ast.If(ast.Constant(False), body, orelse)
            yield ast.If(ast.Constant(True), body, orelse)


def _changed_calls(node: ast.Call) -> Iterator[ast.AST]:
    """The object in place of its method, the argument in place of the function, a twin, an option left out."""
    if isinstance(node.func, ast.Attribute):
        yield node.func.value
        if node.func.attr in TWINS:
            yield ast.Call(ast.Attribute(node.func.value, TWINS[node.func.attr], ast.Load()), node.args, node.keywords)
    elif isinstance(node.func, ast.Name):
        yield from node.args[:2]
        if node.func.id in TWINS:
            yield ast.Call(ast.Name(TWINS[node.func.id], ast.Load()), node.args, node.keywords)
    for index in range(len(node.args) if isinstance(node.func, ast.Attribute) else 0):
        yield ast.Call(node.func, [*node.args[:index], *node.args[index + 1 :]], node.keywords)
    for index in range(len(node.keywords)):
        yield ast.Call(node.func, node.args, [*node.keywords[:index], *node.keywords[index + 1 :]])


def _changed_statements(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.AugAssign):  # x += y → x = y, x -= y
        target = copy.deepcopy(node.target)
        yield ast.Assign([target], node.value)
        yield from (ast.AugAssign(node.target, new(), node.value) for new in ARITHMETIC.get(type(node.op), ()))
    if not isinstance(node, ast.Assign) or isinstance(node.targets[0], ast.Attribute | ast.Subscript):
        yield ast.Pass()


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 160 else f"{text[:157]}..."
