# Finds the imports of a plugin that nothing provides. It reads the sources and runs none of them.
#
# Runs with the interpreter below the base environment, Python 2.7 or 3.7 and later, without its
# `site`. Its argument is JSON: `dir` (the plugin), `path` (the directories of PYTHONPATH), `starts`
# (modules and files that its commands name), `all` (whether files that no command reaches count). It
# prints JSON: in `missing` for each module where it is imported, and whether a program that starts
# must import it; in `unread` the files that it could not look at.
import sys

# Nothing of the directory that we are called from, and nothing of the plugin, is ever imported here:
# the places where the plugin looks are only searched.
sys.path[:] = [place for place in sys.path if place]

import ast
import json
import os

try:
    from importlib.machinery import EXTENSION_SUFFIXES, PathFinder

    find_spec = PathFinder.find_spec
except ImportError:
    import imp

    EXTENSION_SUFFIXES = [one[0] for one in imp.get_suffixes() if one[2] == imp.C_EXTENSION]
    find_spec = None

MOST_FILES = 2000
MOST_SAID = 20
LONGEST = 1 << 20
# Directories and files that no program of the plugin imports.
NOT_READ = {"local", "node_modules", "test", "tests", "doc", "docs", "examples"}
NOT_READ_ENDS = ("_virtualenv_sources", ".egg-info", ".dist-info")
TOOLS = {"setup.py", "conftest.py", "noxfile.py", "fabfile.py", "tasks.py"}
CATCH = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
STATIC = {"sys", "version_info", "platform", "major", "minor"}
# What a test may consist of to be computed here: nothing that calls, and nothing that grows.
SIMPLE = ("Name Attribute Subscript Index Slice Compare BoolOp UnaryOp Not And Or Constant Num Str Tuple"
          " Load Lt LtE Gt GtE Eq NotEq In NotIn").split()
# Modules of other platforms and of Python 2: who imports one under a condition knows why.
ELSEWHERE = set(getattr(sys, "stdlib_module_names", ())) | set((
    "__builtin__ anydbm BaseHTTPServer CGIHTTPServer commands ConfigParser Cookie cookielib copy_reg cPickle"
    " cStringIO dbhash dummy_thread exceptions future_builtins gdbm HTMLParser htmlentitydefs httplib md5 popen2"
    " Queue robotparser sets sha SimpleHTTPServer SimpleXMLRPCServer SocketServer StringIO thread Tkinter"
    " urllib2 urlparse UserDict UserList UserString whichdb xmlrpclib"
    " _winapi _winreg msilib msvcrt nt winreg winsound MacOS Carbon java"
    " asynchat asyncore cgi cgitb distutils imp nntplib pipes smtpd telnetlib"
    " dataclasses contextvars graphlib tomllib zoneinfo annotationlib compression"
).split())
CHANGES_PATH = (b"sys.path", b"addsitedir")
TRY = tuple(getattr(ast, name) for name in ("Try", "TryExcept", "TryFinally", "TryStar") if hasattr(ast, name))
DEFINITIONS = tuple(
    getattr(ast, name) for name in ("FunctionDef", "AsyncFunctionDef", "Lambda") if hasattr(ast, name)
)


ENDS = ["", ".py"] + list(EXTENSION_SUFFIXES)


def named_by_pth(place):
    """The directories that the `.pth` files of a directory add; their lines of code are not run."""
    found = []
    try:
        for name in sorted(os.listdir(place)) if place.endswith("site-packages") else []:
            if name.endswith(".pth"):
                with open(os.path.join(place, name)) as opened:
                    lines = [line.strip() for line in opened.read(LONGEST).splitlines()]
                found += [line for line in lines if line and not line.startswith(("#", "import ", "import\t"))]
    except (IOError, OSError, ValueError):
        pass
    return [one for one in (os.path.join(place, line) for line in found) if os.path.isdir(one)]


class Finder(object):
    """Whether a module is anywhere that a program of the plugin looks."""

    def __init__(self, path):
        self.path = [one for place in path for one in [place] + named_by_pth(place)] + sys.path
        self.known = {}

    def has(self, name, beside):
        key = (name, beside)
        if key not in self.known:
            self.known[key] = self.look(name, beside)
        return self.known[key]

    def look(self, name, beside):
        if name in sys.builtin_module_names or name in sys.modules:
            return True
        if any(os.path.exists(os.path.join(beside, name + end)) for end in ENDS):
            return True
        if name == "distutils" and self.has("setuptools", beside):
            return True
        try:
            if find_spec is not None:
                return find_spec(name, self.path) is not None
            imp.find_module(name, self.path)
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
    simple = all(type(one).__name__ in SIMPLE for one in ast.walk(test))
    if not used or not simple or not used <= STATIC or "sys" not in used:
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
        # a module that is tried once is optional wherever the file imports it
        self.optional = set()
        self.undecided = 0

    def read(self, tree):
        self.all(tree.body, True)
        self.missing = [one for one in self.missing if one[0] not in self.optional]
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
            self.tried(node.body, starts)
        elif isinstance(node, DEFINITIONS):
            self.all(ast.iter_child_nodes(node), False)
        else:
            self.all(ast.iter_child_nodes(node), starts)

    def guarded(self, node, starts):
        handlers = [one for one in getattr(node, "handlers", []) if catches(one)]
        if not handlers:
            self.all(node.body, starts)
        else:
            # Without the module the handler runs, and only then.
            lacks = self.tried(node.body, starts)
            for handler in handlers if lacks else []:
                self.all(handler.body, starts)
        for handler in getattr(node, "handlers", []):
            if handler not in handlers:
                self.all(handler.body, False)
        self.all(getattr(node, "orelse", []), starts and not handlers)
        self.all(getattr(node, "finalbody", []), starts)

    def tried(self, nodes, starts):
        """Reads what may fail: whether it lacks a module."""
        lacked = len(self.missing)
        self.all(nodes, starts)
        self.optional.update(one[0] for one in self.missing[lacked:])
        lacks = len(self.missing) > lacked
        del self.missing[lacked:]
        return lacks

    def conditional(self, node, starts):
        value = decided(node.test)
        self.undecided += value is None
        self.branches(node, starts, value)
        self.undecided -= value is None

    def branches(self, node, starts, value):
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
        elif not self.undecided or module.split(".")[0] not in ELSEWHERE:
            self.missing.append((module.split(".")[0], node.lineno, starts))

    def follow(self, module, starts):
        if starts:
            self.follows.append(module)


class Plugin(object):
    def __init__(self, request):
        self.dir = os.path.abspath(request["dir"])
        self.roots = [self.dir] + [p for p in request["path"] if self.is_own(p)]
        self.starts = request["starts"]
        self.all = request["all"]
        self.finder = Finder(request["path"])
        self.found = {}
        self.unread = []
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
                        self.unread.append("all after the first %d files" % MOST_FILES)
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

    def read(self, file):
        """What a file imports; None of a file that cannot be read."""
        try:
            if not os.path.isfile(file):
                return None
            with open(file, "rb") as opened:
                source = opened.read(LONGEST + 1)
            # a program that changes where it looks may find what is not found here
            self.looks_elsewhere = self.looks_elsewhere or any(one in source for one in CHANGES_PATH)
            if len(source) > LONGEST:
                raise ValueError("it is too long")
            tree = ast.parse(source, file)
        except SyntaxError:
            # the start tells
            return None
        except (IOError, OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
            return self.not_read(file, error)
        try:
            return Reader(self.finder, file, self.package(file)).read(tree)
        except (RuntimeError, MemoryError) as error:
            return self.not_read(file, error)

    def not_read(self, file, error):
        self.unread.append("%s (%s)" % (os.path.relpath(file, self.dir), str(error) or type(error).__name__))

    def below(self):
        """The modules that files anywhere below the plugin could be."""
        found = set()
        for _, dirs, names in os.walk(self.dir):
            dirs[:] = [one for one in dirs if one not in ("node_modules", ".git")]
            found.update(dirs)
            for end in ENDS[1:]:
                found.update(name[: -len(end)] for name in names if name.endswith(end))
        return found

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
            reader = self.read(file)
            if reader is not None:
                self.note(file, reader, True)
                for module in reader.follows:
                    todo += self.modules(module)
        for file in self.files() if self.all else []:
            reader = None if file in done else self.read(file)
            if reader is not None:
                self.note(file, reader, False)
        missing = sorted(self.found.values(), key=lambda one: (one["file"], one["line"]))
        if missing and self.looks_elsewhere:
            below = self.below()
            missing = [dict(one, starts=False) for one in missing if one["module"] not in below]
        return {"missing": missing[:MOST_SAID], "unread": self.unread[:MOST_SAID // 4]}


def main():
    print(json.dumps(Plugin(json.loads(sys.argv[1])).run()))


main()
