"""Which names a learner's code may use, and a refusal that names the first one that it may not.

Allowed are the names that the exercise's own version in the library uses, those that the learner
and the library define, and plain building blocks: the language, and what building_blocks.txt lists
of torch and NumPy. A module may be used only to take something out of it by name, so that no code
can pass it on and reach what is in it under another name.
"""

import ast
import builtins
import collections
import contextlib
import datetime
import difflib
import functools
import hashlib
import importlib
import random
import re
import string
import types
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from .building_blocks import PIECES, building_blocks

IMPORTS = (ast.Import, ast.ImportFrom)
FUNCTIONS = (ast.FunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
PLAIN_ANNOTATION = (
    *(ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Tuple, ast.List, ast.BinOp),
    *(ast.BitOr, ast.Load),
)
WHOLE_MODULES = (  # every public name is allowed
    "bisect cmath collections.abc fnmatch heapq itertools math numbers statistics unicodedata"
).split()
SOME_OF = {  # of Python's other modules
    "__future__": "annotations",
    "collections": "ChainMap Counter OrderedDict abc defaultdict deque namedtuple",
    "contextlib": "ExitStack closing contextmanager nullcontext suppress",
    "copy": "copy deepcopy",
    "dataclasses": "InitVar KW_ONLY asdict astuple dataclass field replace",
    "functools": "cache cached_property cmp_to_key lru_cache partial reduce total_ordering wraps",
    "hashlib": "blake2b blake2s md5 sha1 sha256 sha384 sha512",
    "json": "dumps loads",
    "operator": "add and_ contains eq ge getitem gt inv is_ is_not itemgetter le lt matmul mod mul "
    "ne neg not_ or_ pow sub truediv xor",
    "random": "Random choice choices gauss getrandbits randint random randrange sample seed "
    "shuffle uniform",
    "re": "DOTALL I IGNORECASE M MULTILINE Match Pattern S U UNICODE VERBOSE X compile escape "
    "findall finditer fullmatch match search split sub subn",
    "string": "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits octdigits printable "
    "punctuation whitespace",
    "typing": "Any Callable ClassVar Collection Dict Final Generator Generic Iterable Iterator "
    "List Literal Mapping NamedTuple NewType Optional Sequence Set Tuple Type TypeAlias TypeVar "
    "Union cast",
    "warnings": "warn",
}
# of which an exercise that writes files may use more than the library's version does
FILES = set(
    "close exists fileno flush fsync is_dir is_file isdir isfile join makedirs mkdir open path "
    "read_bytes remove rename replace rmdir touch unlink write".split()
)
BUILT_IN = set(  # besides the exceptions, all of which are allowed
    "abs all any bin bool bytearray bytes callable chr classmethod complex dict divmod enumerate "
    "filter float format frozenset hasattr hash hex id int isinstance issubclass iter len list "
    "map max min next object oct ord pow print property range repr reversed round set slice "
    "sorted staticmethod str sum super tuple zip Ellipsis False None NotImplemented True "
    "__debug__ __name__".split()
)
METHODS = set(  # the names with underscores that a class may define and code may read
    "__abs__ __add__ __and__ __call__ __contains__ __delitem__ __enter__ __exit__ __floordiv__ "
    "__ge__ __getitem__ __gt__ __hash__ __iadd__ __imul__ __init__ __invert__ __isub__ __iter__ "
    "__le__ __len__ __lt__ __matmul__ __mod__ __mul__ __neg__ __next__ __or__ __post_init__ "
    "__pow__ __radd__ __repr__ __reversed__ __rmul__ __rsub__ __rtruediv__ __setitem__ __slots__ "
    "__str__ __sub__ __truediv__".split()
)
READABLE = METHODS | {"__doc__", "__name__", "__qualname__"}
HARMLESS_HOMES = ("pathlib", "torch.autograd.function", "torch.utils.data")
MAX_NAME = 80  # characters of a name that is shown, or compared with others
PRIVATE = set("_ _asdict _buffers _fields _make _modules _parameters _replace".split())
VALUES = (  # of Python, whose attributes any value may have
    *(bytes, bytearray, complex, dict, float, frozenset, int, list, property, range, set, slice),
    *(str, tuple, collections.ChainMap, collections.Counter, collections.OrderedDict),
    *(collections.defaultdict, collections.deque, contextlib.ExitStack, datetime.timedelta),
    *(functools.partial, random.Random, re.Match, re.Pattern, type(hashlib.sha256())),
)
MORE_ATTRIBUTES = set(  # of exceptions, generators, cached functions, properties and paths
    "add_note anchor args cache_clear cache_info close deleter errno filename getter message name "
    "parent parents parts send setter stem strerror suffix suffixes throw value with_name "
    "with_stem with_suffix".split()
)


def _attributes_of(*kinds: type) -> set[str]:
    return {name for kind in kinds for name in dir(kind) if not name.startswith("_")}


# Frames, code and tracebacks lead to the test and to all that Python has loaded.
LEADING = (
    *(types.FrameType, types.CodeType, types.TracebackType, types.GeneratorType),
    *(types.CoroutineType, types.AsyncGeneratorType),
)
PREFIXES = ("ag_", "co_", "cr_", "f_", "gi_", "tb_")
REACHING = {name for name in _attributes_of(*LEADING) if name.startswith(PREFIXES)}
REACHING |= {"format_map", "get_type_hints", "mro", "register"}


class Refused(Exception):
    """The learner's code uses something that no exercise needs."""


class Needed(NamedTuple):
    """What the library's version of an exercise uses."""

    names: frozenset[str]
    attributes: frozenset[str]

    @classmethod
    def by(cls, nodes: Sequence[ast.AST]) -> "Needed":
        names, attributes = set(), set()
        for node in walk(nodes):
            if isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.Attribute):
                attributes.add(node.attr)
            elif isinstance(node, ast.FunctionDef) and node.name.startswith("__"):
                attributes.add(node.name)
        return cls(frozenset(names), frozenset(attributes))


def walk(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """The nodes and all that is in them."""
    for node in nodes:
        yield from ast.walk(node)


def bound_names(node: ast.stmt) -> set[str]:
    """The names that an import statement binds."""
    return {alias.asname or alias.name.partition(".")[0] for alias in node.names}


@functools.cache
def names_of(module: str) -> frozenset[str]:
    """The names of a module that any exercise may use."""
    if module in SOME_OF:
        return frozenset(SOME_OF[module].split())
    if module in WHOLE_MODULES:
        obj = importlib.import_module(module)
        names = getattr(obj, "__all__", None) or dir(obj)
        return frozenset(name for name in names if not name.startswith("_"))
    return building_blocks().get(module, frozenset())


@functools.cache
def is_known(module: str) -> bool:
    """Whether a module is among the building blocks, or above one of them."""
    known = {*SOME_OF, *WHOLE_MODULES, *building_blocks()} - {"attributes"}
    return any(f"{name}.".startswith(f"{module}.") for name in known)


@functools.cache
def plain_attributes() -> frozenset[str]:
    """The attributes that any value may have."""
    return (
        building_blocks()["attributes"] | MORE_ATTRIBUTES | _attributes_of(*VALUES)
    ) - {"format"}


def _stored_names(node: ast.AST) -> set[str]:
    """The names to which some code assigns."""
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
    return names


def defined_attributes(nodes: Sequence[ast.AST]) -> set[str]:
    """The methods, fields and attributes that some code defines."""
    found = set()
    for node in walk(nodes):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    found.add(inner.name)
            for inner in node.body:
                found |= _stored_names(inner)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "namedtuple":
            for text in walk(node.args[1:]):
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found.update(text.value.replace(",", " ").split())
    return found


def may_import(module: str, name: str | None = None) -> bool:
    """Whether a module of the building blocks may be imported, or this name from it."""
    if name is None:
        return is_known(module)
    return name in names_of(module) or is_known(f"{module}.{name}")


Bound = dict[str, frozenset[str]]  # {name: the modules that it may be, if any}


class Reader:
    """Reads the code that is taken from a learner, and raises Refused for what it does not need.

    taken    the nodes; each stands at the top of the module or in a class of the library
    module   the syntax tree of the library's module
    needed   what the library's version uses
    home     the full name of that module
    library  a function: the names that a module of mmscratch defines; None if there is none
    others   a function: the attributes that the rest of the library defines
    """

    def __init__(
        self,
        taken: Sequence[ast.stmt],
        module: ast.Module,
        needed: Needed,
        home: str,
        library: Callable[[str], Collection[str] | None],
        others: Callable[[], Collection[str]],
    ):
        self.needed = needed
        self.home = home
        self.package = home.rpartition(".")[0]
        self.library = library
        self.others = others
        self.own = defined_attributes(taken)
        self.own |= {node.name for node in taken if isinstance(node, ast.FunctionDef)}
        self.attributes = plain_attributes() | PRIVATE | self.own | defined_attributes(module.body)
        self.methods = _methods(module)  # of the library's module
        self.defined = set()  # at the top of the library's module
        self.added = set()  # at the top by the learner
        self.globals: Bound = {}
        self.imported: Bound = {}  # by the library's module
        self.relied_on = set()  # what is allowed only since the library's version uses it
        self.barred = set()  # imported by the library, for what the exercise does not need
        self.homes = {home}  # the library's module, and those from which it imports
        for node in module.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.defined.add(node.name)
            elif isinstance(node, IMPORTS):
                self._bind_imports(node, self.globals)
                self._note_import(node)
            else:
                self.defined |= _stored_names(node)
        self.imported = dict(self.globals)
        for node in taken:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.added.add(node.name)
            elif isinstance(node, IMPORTS):
                self._bind_imports(node, self.globals)
            else:
                self._bind_statement(node, self.globals, {})
                self.added |= _stored_names(node)
        self.asked = {id(child) for node in walk(taken) for child in _asked_types(node)}
        for node in sorted(taken, key=lambda node: not isinstance(node, IMPORTS)):
            self.visit(node, {})

    # ---------------------------------------------------------------------------------------------
    # What a name means.

    def _bind_imports(self, node: ast.stmt, bound: Bound) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            if isinstance(node, ast.Import):
                path = alias.name if alias.asname else name
            elif self._is_imported_here(self._home(node), alias.name):
                bound[name] = self.imported[alias.name]
                continue
            else:
                path = f"{self._home(node)}.{alias.name}"
                if not self._is_module(path):
                    bound[name] = frozenset()
                    continue
            bound[name] = bound.get(name, frozenset()) | {path}

    def _is_imported_here(self, module: str, name: str) -> bool:
        """Whether this is the library's module and the name one that it imports itself."""
        return module == self.home and name in self.imported

    def _note_import(self, node: ast.stmt) -> None:
        """Note an import of the library's module: from where, and what need not be used."""
        if isinstance(node, ast.Import):
            return
        home = self._home(node)
        self.homes.add(home)
        for alias in node.names:
            self.homes.add(f"{home}.{alias.name}")
            is_ours = home.partition(".")[0] == "mmscratch"
            if not is_ours and home not in HARMLESS_HOMES and not may_import(home, alias.name):
                self.barred.add(alias.asname or alias.name)

    def _home(self, node: ast.ImportFrom) -> str:
        """The module from which a statement imports: "mmscratch.text" for `from ..text import`."""
        if not node.level:
            return node.module
        package = self.package.split(".")
        home = ".".join(package[: len(package) - node.level + 1])
        return f"{home}.{node.module}" if node.module else home

    def _is_module(self, path: str) -> bool:
        return is_known(path) or self.library(path) is not None

    def _bind_statement(self, node: ast.AST, bound: Bound, outer: Bound) -> None:
        """Note `name = module` as another name of the module."""
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            [target] = node.targets
            modules = self._modules_of(node.value, ChainMap(bound, outer))
            if isinstance(target, ast.Name) and modules:
                bound[target.id] = bound.get(target.id, frozenset()) | modules

    def _modules_of(self, node: ast.AST, bound: Bound) -> frozenset[str]:
        """The modules that an expression may be: `torch`, `torch.nn`."""
        if isinstance(node, ast.Name):
            return bound.get(node.id, self.globals.get(node.id, frozenset()))
        if isinstance(node, ast.Attribute):
            paths = {f"{path}.{node.attr}" for path in self._modules_of(node.value, bound)}
            return frozenset(path for path in paths if self._is_module(path))
        return frozenset()

    def _own_names(self, nodes: Sequence[ast.AST], bound: Bound) -> Bound:
        """The names that a function binds itself, without those of functions inside it."""
        found: Bound = {}
        shared = set()

        def collect(node: ast.AST, in_comprehension: bool = False) -> None:
            names = []
            in_comprehension |= isinstance(node, COMPREHENSIONS)
            if isinstance(node, (ast.Global, ast.Nonlocal)):
                shared.update(node.names)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found[node.name] = frozenset()
                outside = [*node.decorator_list, *getattr(node, "bases", [])]
                if isinstance(node, ast.FunctionDef):
                    outside += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                for child in outside:
                    collect(child)
                return
            elif isinstance(node, ast.Lambda):
                return
            elif isinstance(node, IMPORTS):
                self._bind_imports(node, found)
            elif isinstance(node, ast.NamedExpr):
                names = [node.target.id]
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                names = [] if in_comprehension else [node.id]
            elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
                names = [node.name]
            elif isinstance(node, ast.MatchMapping):
                names = [node.rest]
            for name in filter(None, names):
                found.setdefault(name, frozenset())
            for child in ast.iter_child_nodes(node):
                collect(child, in_comprehension)
            self._bind_statement(node, found, bound)

        for node in nodes:
            collect(node)
        return {name: modules for name, modules in found.items() if name not in shared}

    # ---------------------------------------------------------------------------------------------
    # Reading.

    def visit(self, node: ast.AST, bound: Bound) -> None:
        """Check a node in a scope: the names that the functions around it bind."""
        for name in _identifiers(node):
            self._check_identifier(name, node)
        if isinstance(node, FUNCTIONS):
            self._visit_function(node, bound)
        elif isinstance(node, ast.ClassDef):
            self._visit_class(node, bound)
        elif isinstance(node, COMPREHENSIONS):
            inner = dict(bound)
            for part in node.generators:
                inner |= dict.fromkeys(_stored_names(part.target), frozenset())
            self.visit(node.generators[0].iter, bound)
            for i, part in enumerate(node.generators):
                children = [part.target, *part.ifs] + ([part.iter] if i else [])
                for child in children:
                    self.visit(child, inner)
            for field in ("elt", "key", "value"):
                if hasattr(node, field):
                    self.visit(getattr(node, field), inner)
        elif isinstance(node, IMPORTS):
            self._check_import(node)
        elif isinstance(node, ast.Name):
            self._check_name(node, bound)
        elif isinstance(node, ast.Attribute):
            self._visit_attribute(node, bound)
        elif isinstance(node, ast.Call):
            self._visit_call(node, bound)
        elif isinstance(node, ast.AnnAssign):
            self._visit_annotation(node.annotation, bound)
            self.visit(node.target, bound)
            if node.value is not None:
                self.visit(node.value, bound)
        elif isinstance(node, ast.Assign) and self._modules_of(node.value, bound):
            self._visit_alias(node, bound)
        elif isinstance(node, ast.NamedExpr) or isinstance(getattr(node, "ctx", 0), ast.Store):
            self._check_change(node, bound)
            for child in ast.iter_child_nodes(node):
                self.visit(child, bound)
        elif isinstance(node, ast.Global):
            for name in node.names:
                if name in self.added and not hasattr(builtins, name):
                    continue
                raise self._refusal(node, f"global {name}")
        elif isinstance(node, (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)):
            raise self._refusal(node, "async")
        else:
            if isinstance(node, ast.MatchClass):
                for name in node.kwd_attrs:  # `case object(name=x)` reads x.name
                    self._check_attribute(name, node)
            for child in ast.iter_child_nodes(node):
                self.visit(child, bound)

    def _visit_function(self, node: ast.FunctionDef | ast.Lambda, bound: Bound) -> None:
        """Its default values, decorators and annotations are evaluated outside of it."""
        outside = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        for child in [*outside, *getattr(node, "decorator_list", [])]:
            self.visit(child, bound)
        arguments = [arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)]
        for annotation in [arg.annotation for arg in arguments] + [getattr(node, "returns", None)]:
            self._visit_annotation(annotation, bound)
        inside = node.body if isinstance(node.body, list) else [node.body]
        inner = bound | {arg.arg: frozenset() for arg in arguments}
        inner |= self._own_names(inside, inner)
        for child in inside:
            self.visit(child, inner)

    def _visit_class(self, node: ast.ClassDef, bound: Bound) -> None:
        """A name that its body binds falls back on the module's: only functions hide those."""
        for child in [*node.decorator_list, *node.bases]:
            self.visit(child, bound)
        for keyword in node.keywords:
            raise self._refusal(node, f"class {node.name}({keyword.arg or '**'}=…)")
        own = self._own_names(node.body, bound)
        for name, modules in own.items():
            if modules:
                raise self._refusal(node, f"a module in class {node.name}")
        inner = {name: bound[name] for name in bound if name not in own}
        for child in node.body:
            self.visit(child, inner)

    def _visit_annotation(self, node: ast.AST | None, bound: Bound) -> None:
        """Nothing reads an annotation, so that whatever is only named there does no harm.

        Unless an object of the learner's is there, too: `own[torch.load]` hands it on.
        """
        if node is None:
            return
        own = {*bound, *self.added}
        for inner in ast.walk(node):
            is_own = isinstance(inner, ast.Name) and inner.id in own
            if is_own or not isinstance(inner, PLAIN_ANNOTATION):
                self.visit(node, bound)
                return

    def _visit_alias(self, node: ast.Assign, bound: Bound) -> None:
        """`F = torch.nn.functional`: `_bind_statement` has noted it."""
        if len(node.targets) > 1 or not isinstance(node.targets[0], ast.Name):
            raise self._refusal(node, f"{ast.unparse(node.value)} as a value")
        self._check_path(node.value, bound)
        self.visit(node.targets[0], bound)

    def _visit_attribute(self, node: ast.Attribute, bound: Bound) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._check_change(node, bound)
            if node.attr in self.methods and not self._needs(f".{node.attr}"):
                raise Refused(
                    f"line {node.lineno}: changes .{node.attr}, a method of the library's: "
                    "choose another name"
                )
        if node.attr in ("__name__", "__qualname__"):
            if isinstance(node.value, ast.Attribute) and node.value.attr == "__class__":
                self.visit(node.value.value, bound)
                return
        if self._modules_of(node, bound):
            raise self._refusal(node, f"{ast.unparse(node)} as a value")
        if self._modules_of(node.value, bound):
            self._check_path(node, bound)
            return
        self.visit(node.value, bound)
        self._check_attribute(node.attr, node)

    def _check_path(self, node: ast.AST, bound: Bound) -> None:
        """Check `module.name`, or the path of a module itself."""
        if isinstance(node, ast.Name):
            return
        for module in self._modules_of(node.value, bound):
            if not self._may_take(module, node.attr) and not self._needs(f".{node.attr}"):
                raise self._refusal(node, f"{ast.unparse(node)}", self._names_in(module))
        self._check_path(node.value, bound)

    def _may_take(self, module: str, name: str) -> bool:
        if module.partition(".")[0] == "mmscratch":
            return name in (self.library(module) or ()) or self._is_module(f"{module}.{name}")
        if module in ("os", "os.path") and self._writes_files:
            return name in FILES
        return may_import(module, name)

    def _names_in(self, module: str) -> frozenset[str]:
        return self.library(module) or names_of(module)

    def _needs(self, name: str) -> bool:
        """Whether the library's version uses a name or ".attribute", which is then noted."""
        is_attribute = name.startswith(".")
        needed = self.needed.attributes if is_attribute else self.needed.names
        if name.removeprefix(".") not in needed:
            return False
        self.relied_on.add(name)
        return True

    @property
    def _writes_files(self) -> bool:
        return "open" in self.needed.names

    def _visit_call(self, node: ast.Call, bound: Bound) -> None:
        name = getattr(node.func, "id", "") if not self._is_bound(node.func, bound) else ""
        if name == "type" and id(node) in self.asked and not node.keywords:
            if len(node.args) == 1 and not isinstance(node.args[0], ast.Starred):
                self.visit(node.args[0], bound)
                return
        if name in ("isinstance", "issubclass") and len(node.args) == 2:
            if getattr(node.args[1], "id", "") == "type":
                self.visit(node.args[0], bound)
                return
        if name == "getattr" and _reads_own_attribute(node):
            for child in node.args:
                self.visit(child, bound)
            return
        if isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            self._check_format(node)
            for child in [*node.args, *(keyword.value for keyword in node.keywords)]:
                self.visit(child, bound)
            return
        for keyword in node.keywords:
            if keyword.arg in ("assigned", "updated"):  # of functools.wraps, which copies them
                raise self._refusal(node, f"{keyword.arg}=")
        for child in ast.iter_child_nodes(node):
            self.visit(child, bound)

    def _check_format(self, node: ast.Call) -> None:
        """A format string can read attributes: "{0.name}"."""
        text = node.func.value
        fields = ["."]
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            with contextlib.suppress(ValueError):
                fields = [name or "" for _, name, _, _ in string.Formatter().parse(text.value)]
                # a field inside of a format: "{:{width}}"
                nested = [spec or "" for _, _, spec, _ in string.Formatter().parse(text.value)]
                fields += [spec.replace(".", "", 1) for spec in nested if "{" in spec]
        if any("." in field or "[" in field for field in fields):
            raise Refused(
                f"line {node.lineno}: .format is allowed only right behind a text whose fields "
                "are plain, as in '{:.1f}'.format(x); or write an f-string"
            )

    def _is_bound(self, node: ast.AST, bound: Bound) -> bool:
        return isinstance(node, ast.Name) and node.id in {*bound, *self.added}

    # ---------------------------------------------------------------------------------------------
    # Checks.

    def _check_change(self, node: ast.AST, bound: Bound) -> None:
        """Refuse to change what the library's module defines or imports."""
        root = node.target if isinstance(node, ast.NamedExpr) else node
        while isinstance(root, (ast.Attribute, ast.Subscript)):
            root = root.value
        is_global = isinstance(root, ast.Name) and root.id not in bound
        is_module = bool(self._modules_of(root, bound))
        if is_module or (is_global and root.id in {*self.globals, *self.defined}):
            changed = ast.unparse(getattr(node, "target", node))
            raise Refused(f"line {node.lineno}: changes {changed}, which is not its own")

    def _check_import(self, node: ast.stmt) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                is_allowed = self._may_import(alias.name)
                shown = alias.name
            else:
                home = self._home(node)
                shown = alias.name if is_known(home) or home in self.homes else home
                is_allowed = self._may_import(home, alias.name)
            if not is_allowed:
                raise Refused(
                    f"line {node.lineno}: imports {shown}, which this exercise does not need"
                )

    def _may_import(self, module: str, name: str | None = None) -> bool:
        if self._is_imported_here(module, name):  # a notebook's way to the module's names
            return name not in self.barred or self._needs(name)
        if module.partition(".")[0] == "mmscratch":
            is_near = module in self.homes
            return is_near and (name is None or self._may_take(module, name))
        if may_import(module, name):
            return True
        if name is None:
            return self._needs(module)  # such as `os`, for what the library's version uses of it
        is_module_allowed = is_known(module) or self._needs(module) or module in HARMLESS_HOMES
        return is_module_allowed and (self._needs(name) or self._needs(f".{name}"))

    def _check_name(self, node: ast.Name, bound: Bound) -> None:
        name = node.id
        if name in bound:
            if bound[name] and isinstance(node.ctx, ast.Load):
                raise self._refusal(node, f"{name} as a value")
            return
        if not isinstance(node.ctx, ast.Load):
            return
        if self.globals.get(name):
            raise self._refusal(node, f"{name} as a value")
        if name in self.barred and not self._needs(name):
            raise self._refusal(node, name)
        if name in self.defined or name in self.globals:
            return
        is_restricted = name in ("getattr", "type")  # to what `_visit_call` allows
        if name.startswith("__") and name.endswith("__") and name not in BUILT_IN:
            if not self._needs(name):
                raise self._refusal(node, name)
        elif is_restricted or (hasattr(builtins, name) and name not in BUILT_IN):
            kind = getattr(builtins, name)
            is_error = isinstance(kind, type) and issubclass(kind, BaseException)
            if not is_error and (is_restricted or not self._needs(name)):
                raise self._refusal(node, name)

    def _check_attribute(self, name: str, node: ast.AST) -> None:
        is_hidden = name.startswith("__") and name.endswith("__")
        is_changed = is_hidden and isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del))
        if name in REACHING or is_hidden:
            is_allowed = name in READABLE and not is_changed
        else:
            is_allowed = name in self.attributes or (name in FILES and self._writes_files)
        if not is_allowed and not self._needs(f".{name}"):
            if name in REACHING or is_hidden or name not in self.others():
                raise self._refusal(node, f".{name}", self.attributes)

    def _check_identifier(self, name: str, node: ast.AST) -> None:
        """Check a name that a statement gives: of a function, a class, a variable, …"""
        is_hidden = name.startswith("__") and name.endswith("__")
        is_function = isinstance(node, ast.FunctionDef)
        if name in REACHING:
            is_allowed = False
        else:
            is_allowed = not is_hidden or name == "__slots__" or (is_function and name in METHODS)
        if not is_allowed and not self._needs(f".{name}"):
            raise self._refusal(node, name)

    def _refusal(self, node: ast.AST, what: str, known: Sequence[str] = ()) -> Refused:
        if len(what) > MAX_NAME:
            what = f"{what[:MAX_NAME]}…"
        text = f"line {getattr(node, 'lineno', 0)}: {what} is not allowed"
        text += ", and this exercise does not need it"
        last = what.rpartition(".")[2][:MAX_NAME]
        close = difflib.get_close_matches(last, known, 1, 0.8) if last not in known else []
        if close and not PIECES.search(last):
            text += f"; did you mean {what.removesuffix(last)}{close[0]}?"
        return Refused(text)


def _asked_types(node: ast.AST) -> list[ast.AST]:
    """The children of a node that may be `type(x)`: to compare, to show, to make one more of it.

    The type of a type makes classes with any methods, so that it must not be kept or called.
    """
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, (ast.Attribute, ast.FormattedValue)):
        return [node.value]
    if isinstance(node, ast.Subscript):
        return [node.slice]
    if isinstance(node, ast.Call):
        is_starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        makes_class = is_starred or len(node.args) == 3
        name = getattr(node.func, "id", "")
        shown = node.args if name in ("isinstance", "issubclass", "print", "repr", "str") else []
        return [*shown, *([] if makes_class else [node.func])]
    return []


def _methods(module: ast.Module) -> set[str]:
    """The names that are always methods: no code of the module assigns to them.

    Code that assigns to one may replace it in a class that it was given: `kind.forward = …`.
    """
    methods = {"forward"}
    assigned = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            methods |= {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)}
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            assigned.add(node.attr)
    return methods - assigned


def _identifiers(node: ast.AST) -> list[str]:
    """The names that a node binds, other than by a Name."""
    if isinstance(
        node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
    ):
        return [node.name] if node.name else []
    if isinstance(node, ast.MatchMapping):
        return [node.rest] if node.rest else []
    if isinstance(node, IMPORTS):
        return [alias.asname for alias in node.names if alias.asname]
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return [node.id]
    if isinstance(node, (ast.Global, ast.Nonlocal)):
        return list(node.names)
    return []


def _reads_own_attribute(node: ast.Call) -> bool:
    """Whether a call is `getattr(self, "weight" + …)`: its name begins as no reaching one does."""
    if len(node.args) not in (2, 3) or node.keywords:
        return False
    if getattr(node.args[0], "id", "") != "self":
        return False
    first = node.args[1]
    while isinstance(first, (ast.BinOp, ast.JoinedStr)):
        first = first.left if isinstance(first, ast.BinOp) else (first.values or [None])[0]
    start = getattr(first, "value", None)
    if not isinstance(first, ast.Constant) or not isinstance(start, str) or not start:
        return False
    return start[0] != "_" and not any(
        name.startswith(start) or start.startswith(name) for name in REACHING
    )
