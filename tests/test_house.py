"""The rooms of the house: which there are, and that none knows one above it."""

import ast
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


def imports(path):
    """Return the modules of this package that a file imports, wherever it does."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
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
