# Translates what a project of another tool locks, or asks for, into requirements of pip.
#
# Runs with the interpreter of the plugin, in the environment of our pip, whose parts read TOML and
# markers. Arguments: the file (uv.lock, poetry.lock, Pipfile.lock or pyproject.toml) and the
# pyproject.toml beside it. It prints JSON: `lines`, `indexes`, or the reason in `error`.
import sys

# Nothing of the directory that we are called from is imported, which is the plugin's.
sys.path[:] = [place for place in sys.path if place]

import json
import os
import re

from pip._vendor.packaging.markers import Marker
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.specifiers import SpecifierSet

PYPI = "pypi.org/simple"


class Refused(Exception):
    pass


def load(file):
    try:
        import tomllib
    except ImportError:
        from pip._vendor import tomli as tomllib
    with open(file, "rb") as opened:
        return tomllib.load(opened)


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def holds(marker, extras=()):
    if not marker:
        return True
    return any(Marker(marker).evaluate({"extra": extra}) for extra in list(extras) or [""])


def here(specifier):
    version = "%d.%d.%d" % sys.version_info[:3]
    return SpecifierSet(pep440(specifier)).contains(version, prereleases=True)


def pep440(text):
    """The constraints of Poetry (`^2.1`, `~1.2`, `2.*`, `1.0`) as those of pip."""
    if "||" in text:
        raise Refused("the constraint %r has alternatives: lock the project" % text)
    return ",".join(one for part in text.replace("*,", "").split(",") for one in [pep440_of(part.strip())] if one)


def pep440_of(part):
    if part in ("*", ""):
        return ""
    numbers = [int(n) for n in re.findall(r"\d+", part.split("-")[0])]
    if part[0] == "^":
        at = next((i for i, n in enumerate(numbers) if n), len(numbers) - 1)
        upper = numbers[:at] + [numbers[at] + 1]
    elif part[0] == "~" and part[1:2] != "=":
        at = 1 if len(numbers) > 1 else 0
        upper = numbers[:at] + [numbers[at] + 1]
    elif part[0].isdigit():
        return "==" + part
    else:
        return part.replace(" ", "")
    return ">=%s,<%s" % (part[1:].strip(), ".".join(map(str, upper)))


def pinned(name, extras, version, sums):
    extra = "[%s]" % ",".join(sorted(extras)) if extras else ""
    return "%s%s==%s" % (name, extra, version) + "".join(" --hash=" + one for one in sorted(set(sums)))


def direct(name, extras, address):
    return "%s%s @ %s" % (name, "[%s]" % ",".join(sorted(extras)) if extras else "", address)


def local(path):
    path = os.path.normpath(path)
    return path if path.startswith(("/", "..")) else "./" + path


def walk(todo, find, needs):
    """Every package that is needed, with its extras: `find` gives the package of a dependency,
    `needs` its dependencies (name, version, extras) for these extras."""
    found = {}
    while todo:
        name, version, extras = todo.pop()
        key, package = find(normal(name), version)
        is_new = key not in found
        known = found.setdefault(key, (package, set()))[1]
        if is_new or set(extras) - known:
            known.update(extras)
            todo += needs(package, known)
    return [found[key] for key in sorted(found)]


def of_uv(lock, project):
    packages = {}
    for package in lock.get("package", []):
        packages.setdefault(normal(package["name"]), []).append(package)
    is_root = lambda p: p.get("source", {}).get("virtual", p.get("source", {}).get("editable")) == "."
    roots = [p for p in lock.get("package", []) if is_root(p)]
    if len(roots) != 1:
        raise Refused("it does not say which package is the project itself")
    named = [Requirement(one) for one in project.get("project", {}).get("dependencies", [])]
    locked = {normal(one["name"]) for one in roots[0].get("dependencies", [])}
    stale(named, locked, "uv lock")

    def find(name, version):
        all_of = packages.get(name, [])
        fitting = [p for p in all_of if version in (None, p.get("version"))]
        fitting = [p for p in fitting if any(map(holds, p.get("resolution-markers", [""])))]
        if not fitting:
            raise Refused("it has no %s for this interpreter: `uv lock`" % name)
        return (name, fitting[0].get("version") or ""), fitting[0]

    def wanted(dependencies):
        return [
            (one["name"], one.get("version"), one.get("extra", []))
            for one in dependencies
            if holds(one.get("marker"))
        ]

    def needs(package, extras):
        optional = package.get("optional-dependencies", {})
        more = [one for extra in extras for one in optional.get(extra, [])]
        return wanted(package.get("dependencies", []) + more)

    lines, indexes = [], []
    for package, extras in walk(wanted(roots[0].get("dependencies", [])), find, needs):
        source, name = package.get("source", {}), package["name"]
        if "registry" in source:
            files = package.get("wheels", []) + [one for one in [package.get("sdist")] if one]
            lines.append(pinned(name, extras, package["version"], [f["hash"] for f in files if "hash" in f]))
            indexes.append(source["registry"])
        elif "git" in source:
            address, _, commit = source["git"].partition("#")
            address, _, query = address.partition("?")
            below = re.search(r"subdirectory=([^&]+)", query)
            lines.append(direct(name, extras, "git+%s@%s%s" % (address, commit, "#subdirectory=" + below.group(1) if below else "")))
        elif "url" in source:
            lines.append(direct(name, extras, source["url"]))
        else:
            place = source.get("path") or source.get("directory") or source.get("editable")
            if not place:
                raise Refused("the source of %s is not known" % name)
            lines.append(direct(name, extras, local(place)))
    return lines, indexes


def stale(named, locked, command):
    for one in named:
        if holds(str(one.marker) if one.marker else None) and normal(one.name) not in locked:
            raise Refused("it does not have %s, which pyproject.toml asks for: `%s`" % (one.name, command))


def poetry_wanted(dependencies, extras=()):
    """(name, version, extras) of a table of dependencies, what does not hold here left out."""
    found = []
    for name, value in dependencies.items():
        for one in value if isinstance(value, list) else [value]:
            one = {"version": one} if not isinstance(one, dict) else one
            if normal(name) == "python" or not holds(one.get("markers"), extras):
                continue
            if one.get("optional") and "extra" not in one.get("markers", ""):
                continue
            if "python" in one and not here(one["python"]):
                continue
            found.append((name, one.get("version"), one.get("extras", []), one))
    return found


def project_wanted(project):
    found = []
    for text in project.get("project", {}).get("dependencies", []):
        one = Requirement(text)
        if holds(str(one.marker) if one.marker else None):
            found.append((one.name, None, sorted(one.extras)))
    own = poetry_wanted(project.get("tool", {}).get("poetry", {}).get("dependencies", {}))
    return found + [(name, None, extras) for name, _, extras, _ in own]


def of_poetry(lock, project):
    packages = {}
    for package in lock.get("package", []):
        packages.setdefault(normal(package["name"]), []).append(package)
    old_files = lock.get("metadata", {}).get("files", {})

    def fits(package):
        markers = package.get("markers")
        if isinstance(markers, dict):
            markers = markers.get("main")
        return holds(markers) and here(package.get("python-versions", "*"))

    def find(name, version):
        fitting = [p for p in packages.get(name, []) if fits(p)]
        if not fitting:
            raise Refused("it has no %s for this interpreter: `poetry lock`" % name)
        agreed = fitting
        if version and "||" not in version:
            agreed = [p for p in fitting if SpecifierSet(pep440(version)).contains(p["version"], prereleases=True)]
        package = (agreed or fitting)[0]
        return (name, package["version"]), package

    def needs(package, extras):
        found = poetry_wanted(package.get("dependencies", {}), extras)
        asked = {normal(re.split(r"[ \[(;]", one)[0]) for extra in extras for one in package.get("extras", {}).get(extra, [])}
        optional = package.get("dependencies", {})
        more = [(name, None, []) for name in optional if normal(name) in asked]
        return [(name, version, wanted) for name, version, wanted, _ in found] + more

    lines, indexes = [], []
    for package, extras in walk(project_wanted(project), find, needs):
        source, name = package.get("source", {}), package["name"]
        kind = source.get("type")
        if kind in (None, "legacy"):
            files = package.get("files") or old_files.get(name, [])
            lines.append(pinned(name, extras, package["version"], [f["hash"] for f in files]))
            indexes += [source["url"]] if kind else []
        elif kind == "git":
            below = source.get("subdirectory")
            address = "git+%s@%s%s" % (source["url"], source["resolved_reference"], "#subdirectory=" + below if below else "")
            lines.append(direct(name, extras, address))
        else:
            lines.append(direct(name, extras, source["url"] if kind == "url" else local(source["url"])))
    return lines, indexes


def of_pipfile(lock):
    lines = []
    for name, one in sorted(lock.get("default", {}).items()):
        if not holds(one.get("markers")):
            continue
        extras = one.get("extras", [])
        if "git" in one:
            below = one.get("subdirectory")
            address = "git+%s@%s%s" % (one["git"], one["ref"], "#subdirectory=" + below if below else "")
            lines.append(direct(name, extras, address))
        elif "path" in one or "file" in one:
            place = one.get("path") or one["file"]
            lines.append(direct(name, extras, place if "://" in place else local(place)))
        else:
            lines.append(pinned(name, extras, one["version"].lstrip("="), one.get("hashes", [])))
    return lines, [source["url"] for source in lock.get("_meta", {}).get("sources", [])]


def of_project(project):
    tool = project.get("tool", {})
    if tool.get("uv", {}).get("sources"):
        raise Refused("[tool.uv.sources] needs a lock: `uv lock`")
    lines = list(project.get("project", {}).get("dependencies", []))
    for name, version, extras, one in poetry_wanted(tool.get("poetry", {}).get("dependencies", {})):
        if "git" in one:
            lines.append(direct(name, extras, "git+%s@%s" % (one["git"], one.get("rev") or one.get("tag") or one.get("branch") or "HEAD")))
        elif "url" in one or "path" in one:
            lines.append(direct(name, extras, one.get("url") or local(one["path"])))
        else:
            lines.append("%s%s%s" % (name, "[%s]" % ",".join(extras) if extras else "", pep440(version or "*")))
    return lines, [one["url"] for one in tool.get("uv", {}).get("index", []) if "url" in one]


def translate(file, beside):
    name = os.path.basename(file)
    if name == "Pipfile.lock":
        with open(file) as opened:
            return of_pipfile(json.load(opened))
    project = load(beside) if os.path.exists(beside) else {}
    python = project.get("project", {}).get("requires-python")
    if python and not here(python):
        raise Refused("pyproject.toml requires Python %s" % python)
    if name == "uv.lock":
        return of_uv(load(file), project)
    if name == "poetry.lock":
        return of_poetry(load(file), project)
    return of_project(project)


def main():
    try:
        lines, indexes = translate(*sys.argv[1:3])
        other = [one for one in dict.fromkeys(indexes) if PYPI not in one]
        print(json.dumps({"lines": lines, "indexes": other}))
    except Refused as refused:
        print(json.dumps({"error": str(refused)}))
    except Exception as error:
        print(json.dumps({"error": "it cannot be read: %s: %s" % (type(error).__name__, error)}))


main()
