"""The rooms of the house: which there are, and that none knows one above it."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import napari_mrcz

PACKAGE = Path(napari_mrcz.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {"errors", "naming"},
    {"format", "correction", "simulation"},
    {"stack"},
    {"session"},
    {"cli", "plugin"},
    {"widgets"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Commands open napari's window, and the demo has one of each: arrows that are drawn when they run.
WINDOWS = {("cli", "plugin"), ("plugin", "widgets")}


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def statements(block):
    """Return every statement of a block: those within classes, functions and branches, too."""
    for node in block:
        yield node
        for name in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, name, ()))
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from statements(part.body)


@cache
def parsed(path):
    """Return the statements at the beginning of lines."""
    return ast.parse(path.read_text(encoding="utf-8")).body


def imports(path, types=True):
    """Return the modules of this package that a file imports; for type checkers alone or not."""
    block = parsed(path)
    if not types:
        block = [
            n
            for n in block
            if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test))
        ]
    for node in statements(block):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [node.module]
            if node.module == "napari_mrcz":
                names = [f"napari_mrcz.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.split(".")[0] == "napari_mrcz")


def test_the_rooms_are_those_of_the_plan():
    found = {path.stem for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found - {"__init__", "py", "napari", "resources"} == set(FLOOR)


def test_no_room_knows_one_above_it_or_beside_it():
    wrong = set()
    for path in MODULES:
        room = room_of(path)
        for name in imports(path):
            _, _, other = name.partition(".")
            other = other.partition(".")[0]
            if room == "__init__" or other in ("", room) or (room, other) in WINDOWS:
                continue
            if other not in FLOOR or FLOOR[other] >= FLOOR[room]:
                wrong.add(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {}
    for path in MODULES:
        name = ".".join(("napari_mrcz", *path.relative_to(PACKAGE).with_suffix("").parts))
        graph[name.removesuffix(".__init__")] = set(imports(path, types=False))
    done, on_the_way = set(), []

    def visit(name):
        assert name not in on_the_way, " -> ".join([*on_the_way, name])
        if name in done or name not in graph:
            return
        on_the_way.append(name)
        for other in sorted(graph[name]):
            visit(other)
        done.add(on_the_way.pop())

    for name in sorted(graph):
        visit(name)


def test_modules_and_classes_have_names_of_their_own():
    modules = Counter(
        path.stem for path in MODULES if room_of(path) != "widgets" and path.stem != "__init__"
    )
    classes = Counter(
        node.name
        for path in MODULES
        if room_of(path) != "widgets"
        for node in statements(parsed(path))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, times in (modules + classes).items() if times > 1] == []
