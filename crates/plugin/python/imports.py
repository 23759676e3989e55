# Finds the imports of a plugin that nothing provides. It reads the sources and runs none of them.
#
# Runs with the interpreter of the plugin, Python 2.7 or 3.7 and later. Its argument is JSON: `dir`
# (the plugin), `path` (the directories of PYTHONPATH), `starts` (modules and files that its
# commands name). It prints JSON: for each missing module where it is imported, and whether a
# program that starts must import it.
import ast
import json
import os
import sys

try:
    from importlib.util import find_spec
except ImportError:
    find_spec = None
    import imp

MOST_FILES = 2000
LONGEST = 1 << 20
# Directories and files that no program of the plugin imports.
NOT_READ = {"local", "node_modules", "test", "tests", "doc", "docs", "examples"}
NOT_READ_ENDS = ("_virtualenv_sources", ".egg-info", ".dist-info")
TOOLS = {"setup.py", "conftest.py", "noxfile.py", "fabfile.py", "tasks.py"}
CATCH = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
STATIC = {"sys", "version_info", "platform", "major", "minor"}
TRY = tuple(getattr(ast, name) for name in ("Try", "TryExcept", "TryFinally", "TryStar") if hasattr(ast, name))
DEFINITIONS = tuple(
    getattr(ast, name) for name in ("FunctionDef", "AsyncFunctionDef", "Lambda") if hasattr(ast, name)
)


class Finder(object):
    """Whether a module is anywhere that a program of the plugin looks."""

    def __init__(self):
        self.known = {}

    def has(self, name, beside):
        key = (name, beside)
        if key not in self.known:
            self.known[key] = self.look(name, beside)
        return self.known[key]

    def look(self, name, beside):
        if name in sys.builtin_module_names or name in sys.modules:
            return True
        if any(os.path.exists(os.path.join(beside, name + end)) for end in ("", ".py", ".so")):
            return True
        try:
            if find_spec is not None:
                return find_spec(name) is not None
            imp.find_module(name)
            return True
        except ImportError:
            return False
        except Exception:
            # a finder of a package that is broken: a start tells more
            return True


def names_of(node):
    """The last parts of the names in an expression: `typing.TYPE_CHECKING` is TYPE_CHECKING."""
    return {getattr(one, "attr", None) or getattr(one, "id", None) for one in ast.walk(node)} - {None}


def decided(test):
    """The value of a test that depends on the interpreter alone; None if it does not."""
    if "TYPE_CHECKING" in names_of(test):
        return False if not isinstance(test, ast.UnaryOp) else True
    used = names_of(test)
    calls = any(isinstance(one, ast.Call) for one in ast.walk(test))
    if not used or calls or not used <= STATIC or "sys" not in used:
        return None
    try:
        return bool(eval(compile(ast.Expression(test), "test", "eval"), {"sys": sys}))
    except Exception:
        return None


def catches(handler):
    return handler.type is None or bool(names_of(handler.type) & CATCH)


def suppresses(node):
    items = getattr(node, "items", None) or [node]
    calls = [item.context_expr for item in items]
    return any(isinstance(c, ast.Call) and "suppress" in names_of(c) and names_of(c) & CATCH for c in calls)


class Reader(object):
    """The imports of one file: (module, line, at the start) and the plugin's own that it needs."""

    def __init__(self, finder, file, package):
        self.finder = finder
        self.file = file
        self.package = package
        self.missing = []
        self.follows = []

    def read(self, tree):
        self.all(tree.body, True)
        return self

    def all(self, nodes, starts):
        for node in nodes:
            self.one(node, starts)

    def one(self, node, starts):
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.wants(alias.name, node, starts)
        elif isinstance(node, ast.ImportFrom):
            base = self.absolute(node)
            if base is not None:
                if node.level:
                    self.follow(base, starts)
                else:
                    self.wants(base, node, starts)
                for alias in node.names:
                    self.follow(base + "." + alias.name, starts)
        elif isinstance(node, TRY):
            self.guarded(node, starts)
        elif isinstance(node, ast.If):
            self.conditional(node, starts)
        elif isinstance(node, ast.With) and suppresses(node):
            pass
        elif isinstance(node, DEFINITIONS):
            self.all(ast.iter_child_nodes(node), False)
        else:
            self.all(ast.iter_child_nodes(node), starts)

    def guarded(self, node, starts):
        handlers = [one for one in getattr(node, "handlers", []) if catches(one)]
        lacked = len(self.missing)
        self.all(node.body, starts)
        if handlers:
            # Without the module the handler runs, and only then.
            lacks = len(self.missing) > lacked
            del self.missing[lacked:]
            for handler in handlers if lacks else []:
                self.all(handler.body, starts)
        for handler in getattr(node, "handlers", []):
            if handler not in handlers:
                self.all(handler.body, False)
        self.all(getattr(node, "orelse", []), starts and not handlers)
        self.all(getattr(node, "finalbody", []), starts)

    def conditional(self, node, starts):
        value = decided(node.test)
        if value is not False:
            self.all(node.body, starts and value is True)
        if value is not True:
            self.all(node.orelse, starts and value is False)

    def absolute(self, node):
        if not node.level:
            return node.module
        parts = self.package.split(".") if self.package else []
        parts = parts[: len(parts) - node.level + 1]
        return ".".join(parts + ([node.module] if node.module else [])) or None

    def wants(self, module, node, starts):
        if self.finder.has(module.split(".")[0], os.path.dirname(self.file)):
            self.follow(module, starts)
        else:
            self.missing.append((module.split(".")[0], node.lineno, starts))

    def follow(self, module, starts):
        if starts:
            self.follows.append(module)


class Plugin(object):
    def __init__(self, request):
        self.dir = os.path.abspath(request["dir"])
        self.roots = [self.dir] + [p for p in request["path"] if self.is_own(p)]
        self.starts = request["starts"]
        self.finder = Finder()
        self.found = {}
        self.looks_elsewhere = False

    def is_own(self, path):
        return path.startswith(self.dir + os.sep) and "site-packages" not in path

    def files(self):
        count = 0
        for place, dirs, names in os.walk(self.dir):
            dirs[:] = sorted(one for one in dirs if self.is_read(os.path.join(place, one)))
            for name in sorted(names):
                is_test = name.startswith("test_") or name.endswith("_test.py") or name in TOOLS
                if name.endswith(".py") and not is_test:
                    count += 1
                    if count > MOST_FILES:
                        return
                    yield os.path.join(place, name)

    @staticmethod
    def is_read(place):
        name = os.path.basename(place)
        skipped = name.startswith((".", "__pycache__")) or name in NOT_READ or name.endswith(NOT_READ_ENDS)
        return not skipped and not os.path.exists(os.path.join(place, "pyvenv.cfg"))

    def modules(self, module):
        """The files of a module of the plugin, with its packages; none of a module of others."""
        parts = module.split(".")
        for root in self.roots:
            found = []
            for end in range(1, len(parts) + 1):
                place = os.path.join(root, *parts[:end])
                found += [f for f in (os.path.join(place, "__init__.py"), place + ".py") if os.path.isfile(f)]
            if found:
                return found
        return []

    def package(self, file):
        place = os.path.relpath(os.path.dirname(file), self.dir)
        return "" if place == "." or place.startswith("..") else place.replace(os.sep, ".")

    def parse(self, file):
        try:
            if os.path.getsize(file) > LONGEST:
                return None
            with open(file, "rb") as opened:
                source = opened.read()
            # a program that changes where it looks may find what is not found here
            self.looks_elsewhere = self.looks_elsewhere or b"sys.path" in source
            return ast.parse(source, file)
        except (IOError, OSError, SyntaxError, ValueError, RuntimeError, MemoryError):
            # what cannot be read is for the start to tell
            return None

    def note(self, file, reader, reached):
        for module, line, starts in reader.missing:
            starts = starts and reached
            before = self.found.get(module)
            if before is None or (starts and not before["starts"]):
                place = os.path.relpath(file, self.dir)
                self.found[module] = {"module": module, "file": place, "line": line, "starts": starts}

    def run(self):
        todo = []
        for name in self.starts:
            todo += [name] if os.path.isfile(name) else self.modules(name)
        done = set()
        while todo:
            file = todo.pop()
            if file in done or len(done) > MOST_FILES:
                continue
            done.add(file)
            tree = self.parse(file)
            if tree is not None:
                reader = Reader(self.finder, file, self.package(file)).read(tree)
                self.note(file, reader, True)
                for module in reader.follows:
                    todo += self.modules(module)
        for file in self.files():
            tree = None if file in done else self.parse(file)
            if tree is not None:
                self.note(file, Reader(self.finder, file, self.package(file)).read(tree), False)
        for one in self.found.values():
            one["starts"] = one["starts"] and not self.looks_elsewhere
        return sorted(self.found.values(), key=lambda one: (one["file"], one["line"]))


def main():
    request = json.loads(sys.argv[1])
    sys.path[:] = request["path"] + [place for place in sys.path if place]
    print(json.dumps(Plugin(request).run()))


main()
