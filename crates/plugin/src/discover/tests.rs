use std::path::Path;

use super::*;

fn readings_of(files: &[(&str, &str)]) -> Vec<Finding> {
    readings(&Listing::of(files))
}

#[track_caller]
fn chosen(files: &[(&str, &str)]) -> Finding {
    choose(&readings_of(files), None, Path::new("dir")).unwrap()
}

const FLASK: &str =
    "\"\"\"Says:\napp = Flask(wrong)\n\"\"\"\nfrom flask import Flask\n\napp = Flask(__name__)\n";

#[test]
fn a_flask_app_is_found_with_the_line_of_its_evidence() {
    let found = chosen(&[("app.py", FLASK), ("requirements.txt", "# x\nFlask>=3\n")]);
    assert_eq!(
        found.sentence(),
        "a Flask app: app.py:6 has app = Flask(__name__); requirements.txt:2 names Flask"
    );
    assert_eq!(found.choice, "app:app");
    let list = found.python.unwrap();
    assert_eq!(list.file.as_deref(), Some("requirements.txt"));
}

#[test]
fn the_interface_follows_from_what_makes_the_app() {
    for (file, text, module, callable, interface) in [
        ("main.py", "app: FastAPI = FastAPI()\n", "main", "app", Interface::Asgi),
        ("src/shop/api.py", "api = fastapi.FastAPI(\n", "shop.api", "api", Interface::Asgi),
        ("shop/__init__.py", "app = Flask(__name__)\n", "shop", "app", Interface::Wsgi),
        (
            "wsgi.py",
            "from shop import app as application\n",
            "wsgi",
            "application",
            Interface::Wsgi,
        ),
        ("asgi.py", "from shop import app\n", "asgi", "app", Interface::Asgi),
        ("app.py", "async def app(scope, receive, send):\n", "app", "app", Interface::Asgi),
        (
            "x.py",
            "def application(environ, start_response):\n",
            "x",
            "application",
            Interface::Wsgi,
        ),
        ("app.py", "app = dash.Dash()\nserver = app.server\n", "app", "server", Interface::Wsgi),
    ] {
        let found = chosen(&[(file, text)]);
        let Some(Web::Python { interface: is, module: of, callable: name, root, .. }) = found.web
        else {
            panic!("{file}");
        };
        assert_eq!((of.as_str(), name.as_str(), is), (module, callable, interface), "{file}");
        assert_eq!(root, if file.starts_with("src/") { "src" } else { "" });
    }
}

#[test]
fn a_factory_is_called_and_its_interface_is_that_of_the_framework() {
    let factory = "def create_app(config=None):\n    app = Flask(__name__)\n";
    let found = chosen(&[("shop/__init__.py", factory), ("requirements.txt", "flask\n")]);
    let Some(Web::Python { is_factory, interface, .. }) = found.web else { panic!() };
    assert!(is_factory && interface == Interface::Wsgi);
    let found = chosen(&[("main.py", "def create_app():\n"), ("requirements.txt", "fastapi\n")]);
    let Some(Web::Python { interface, .. }) = found.web else { panic!() };
    assert_eq!(interface, Interface::Asgi);
    // The list of its own directory says it, and not that of another one.
    let lists = [("back/requirements.txt", "fastapi\n"), ("requirements.txt", "flask\n")];
    let found = chosen(&[("back/main.py", "def create_app():\n"), lists[0], lists[1]]);
    let Some(Web::Python { interface, .. }) = found.web else { panic!() };
    assert_eq!(interface, Interface::Asgi);
    // One that wants an argument cannot be called by us.
    assert!(readings_of(&[("shop/__init__.py", "def create_app(config):\n")]).is_empty());
}

#[test]
fn what_is_inside_of_a_function_a_test_or_a_text_is_no_app() {
    assert!(readings_of(&[("app.py", "def f():\n    app = Flask(__name__)\n")]).is_empty());
    assert!(readings_of(&[("test_app.py", FLASK)]).is_empty());
    assert!(readings_of(&[("app.py", "'''\napp = Flask(__name__)\n'''\n")]).is_empty());
}

#[test]
fn two_apps_are_refused_with_the_choices_and_one_of_them_can_be_chosen() {
    let files = [("app.py", FLASK), ("main.py", "app = FastAPI()\n")];
    let problem = choose(&readings_of(&files), None, Path::new("dir")).unwrap_err();
    assert_eq!(problem.kind, Kind::Usage);
    let text = problem.to_string();
    assert!(text.contains("--as app:app") && text.contains("--as main:app"), "{text}");
    let found = choose(&readings_of(&files), Some("main:app"), Path::new("dir")).unwrap();
    assert_eq!(found.title, "a FastAPI app");
    let problem = choose(&readings_of(&files), Some("node"), Path::new("dir")).unwrap_err();
    assert_eq!(problem.kind, Kind::Usage);
}

#[test]
fn a_python_app_and_a_node_server_side_by_side_are_two_readings() {
    let package = "{\"scripts\": {\"start\": \"node server.js\"}}";
    let files = [("app.py", FLASK), ("package.json", package)];
    let problem = choose(&readings_of(&files), None, Path::new("dir")).unwrap_err();
    assert!(problem.to_string().contains("--as node"), "{problem}");
    // A package.json that only builds assets is none.
    let files = [("app.py", FLASK), ("package.json", "{\"scripts\": {\"build\": \"sass a b\"}}")];
    assert_eq!(chosen(&files).build.as_deref(), Some("sass a b"));
}

#[test]
fn a_python_program_with_a_server_of_its_own_is_started() {
    let bottle = "import os\nfrom bottle import route, run\n\nrun(port=os.environ[\"PORT\"])\n";
    let tornado = "import tornado.web\n\ndef make_app():\n    pass\n\nasync def main():\n    \
                   make_app().listen(8888)\n\nif __name__ == '__main__':\n    main()\n";
    let http = "#!/usr/bin/env python3\nimport http.server\n\nif __name__ == '__main__':\n    \
                http.server.HTTPServer(('', 80), None).serve_forever()\n";
    for (file, text, line) in [("x.py", bottle, 4), ("main.py", tornado, 7), ("x.py", http, 5)] {
        let found = chosen(&[(file, text), ("public/index.html", ""), ("util.py", "import os\n")]);
        assert_eq!(found.choice, if text == http { "static" } else { file });
        let found = chosen(&[(file, text), ("util.py", "import os\n")]);
        assert_eq!(found.web, Some(Web::Command(format!("python -u {file}"))));
        let sentence = found.sentence();
        assert!(sentence.contains(&format!("{file}:{line} has ")), "{sentence}");
    }
    // A library, a script that serves nothing, and the end of an app are none.
    for text in
        ["import bottle\ndef f():\n    bottle.run()\n", "import asyncio\nasyncio.run(f())\n"]
    {
        assert!(readings_of(&[("x.py", text)]).is_empty(), "{text}");
    }
    let flask = format!("{FLASK}if __name__ == '__main__':\n    app.run()\n");
    assert_eq!(chosen(&[("app.py", &flask)]).choice, "app:app");
}

#[test]
fn modules_are_imported_from_the_directory_that_its_author_starts_them_in() {
    let root_of = |files: &[(&str, &str)]| match chosen(files).web {
        Some(Web::Python { root, module, .. }) => (root, module),
        other => panic!("{other:?}"),
    };
    let flask = ("api/app.py", "from models import x\napp = Flask(__name__)\n");
    let models = ("api/models.py", "x = 1\n");
    let (here, there) = (("".into(), "api.app".into()), ("api".into(), "app".into()));
    assert_eq!(root_of(&[flask, models]), there);
    assert_eq!(root_of(&[flask, ("api/__init__.py", ""), models]), here);
    assert_eq!(root_of(&[flask, models, ("x.py", "import api.models\n")]), here);
    assert_eq!(root_of(&[("api/app.py", "from .x import y\napp = Flask(__name__)\n")]), here);
    let list = ("api/requirements.txt", "flask\n");
    let packages = chosen(&[flask, models, list]).python.unwrap();
    assert_eq!((packages.file.as_deref(), &packages.dir[..]), (Some("requirements.txt"), "api"));
    let packages = chosen(&[flask, models, list, ("requirements.txt", "")]).python.unwrap();
    assert_eq!(packages.dir, "");
}

#[test]
fn a_project_of_django_below_the_directory_is_found_with_its_steps() {
    let manage =
        "import django\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'conf.settings.x')\n";
    let found = chosen(&[
        ("back/manage.py", manage),
        ("back/conf/__init__.py", ""),
        ("back/conf/settings/base.py", "STATIC_ROOT = 1\n'NAME': BASE_DIR / 'db.sqlite3'\n"),
        (
            "back/conf/wsgi.py",
            "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'conf.settings.prod')\n\
             application = get_wsgi_application()\n",
        ),
        ("back/requirements.txt", "django\n"),
    ]);
    assert_eq!((&*found.choice, &*found.persistent[0]), ("django", "back/db.sqlite3"));
    assert_eq!(found.release[0], "(cd back && python manage.py migrate --noinput)");
    let Some(Web::Python { root, module, .. }) = found.web else { panic!() };
    assert_eq!((&*root, &*module), ("back", "conf.wsgi"));
    let (developed, served) = ("conf.settings.x".into(), "conf.settings.prod".into());
    assert_eq!(found.settings, Some(Settings { developed, served }));
    assert_eq!(found.python.unwrap().dir, "back");
}

#[test]
fn wsgi_py_wins_over_the_modules_that_it_imports_from() {
    let wsgi = "from app import app\n\nif __name__ == '__main__':\n    app.run()\n";
    assert_eq!(chosen(&[("app.py", FLASK), ("wsgi.py", wsgi)]).choice, "wsgi:app");
}

#[test]
fn django_is_found_by_manage_py_with_its_data_and_its_migrations() {
    let manage =
        "import django\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\n";
    let settings = "STATIC_ROOT = BASE_DIR / 'x'\nDATABASES = {'default': {\n 'NAME': BASE_DIR / 'db.sqlite3',\n}}\n";
    let found = chosen(&[
        ("manage.py", manage),
        ("site1/settings.py", settings),
        ("site1/wsgi.py", "application = get_wsgi_application()\n"),
        ("requirements.txt", "Django==5.1\n"),
    ]);
    assert_eq!(
        (found.choice.as_str(), &found.persistent[..]),
        ("django", &["db.sqlite3".into()][..])
    );
    assert_eq!(found.release.len(), 2, "{:?}", found.release);
    let sentence = found.sentence();
    assert!(sentence.contains("site1/settings.py:3 keeps its data in db.sqlite3"), "{sentence}");
}

#[test]
fn a_procfile_says_it_all_and_its_other_lines_hold_for_every_reading() {
    let procfile = "# comment\nweb: gunicorn app:app --bind 0.0.0.0:$PORT\nworker: python w.py\n\
                    release: ./migrate.sh\ncron-night: 0 3 * * * ./night.sh --all\nclock: ./clock\n";
    let files = [("Procfile", procfile), ("app.py", FLASK)];
    let found = chosen(&files);
    assert_eq!(found.choice, "procfile");
    assert_eq!(found.web, Some(Web::Command("gunicorn app:app --bind 0.0.0.0:$PORT".into())));
    assert_eq!(found.release, ["./migrate.sh"]);
    let programs: Vec<_> = found.programs.iter().map(|one| (&*one.name, &*one.line)).collect();
    let wanted =
        [("worker", "python w.py"), ("cron_night", "./night.sh --all"), ("clock", "./clock")];
    assert_eq!(programs, wanted);
    assert_eq!(found.programs[1].schedule.as_deref(), Some("0 3 * * *"));
    let other = choose(&readings_of(&files), Some("app:app"), Path::new("dir")).unwrap();
    assert_eq!(other.programs.len(), 3);
}

#[test]
fn a_start_script_is_a_server_unless_it_is_one_for_development() {
    let package = |start: &str| {
        format!(
            "{{\"scripts\": {{\n\"start\": \"{start}\",\n\"build\": \"vite build\"}}, \"version\": \"1.2.0\"}}"
        )
    };
    for (start, command) in
        [("node dist/server.js", "node dist/server.js"), ("next start", "npm --silent start")]
    {
        let found = chosen(&[("package.json", &package(start))]);
        assert_eq!(found.web, Some(Web::Command(command.into())));
        assert_eq!(found.version.as_deref(), Some("1.2.0"));
    }
    let found = chosen(&[("package.json", &package("vite")), ("index.html", "")]);
    assert_eq!(found.web, Some(Web::Files { dir: "dist".into(), is_single_page: true }));
    assert!(found.has_node && found.sentence().contains("package.json:3 has build: vite build"));
}

#[test]
fn a_site_is_served_from_where_its_index_is_or_its_build_writes() {
    let found = chosen(&[("index.html", "<p>"), ("style.css", "")]);
    assert_eq!(found.web, Some(Web::Files { dir: String::new(), is_single_page: false }));
    assert!(found.python.is_none() && !found.has_node);
    let config = "export default {\n  build: { outDir: './out/' },\n}\n";
    let package = "{\"scripts\": {\"build\": \"tsc && vite build\"}}";
    let found = chosen(&[("package.json", package), ("vite.config.js", config)]);
    assert_eq!(found.web, Some(Web::Files { dir: "out".into(), is_single_page: true }));
}

#[test]
fn a_build_of_the_authors_own_is_a_site_where_it_says_what_it_makes() {
    let package = |build: &str| format!("{{\"scripts\": {{\"build\": \"{build}\"}}}}");
    let script = "import fs from 'node:fs'\nfs.writeFileSync('dist/index.html', '')\n";
    for (build, dir) in [
        ("node build.mjs", "dist"),
        ("hugo -d out", "out"),
        ("mkdir -p _site && cp -r src/. _site/", "_site"),
    ] {
        let found = chosen(&[("package.json", &package(build)), ("build.mjs", script)]);
        let wanted = Web::Files { dir: dir.into(), is_single_page: false };
        assert_eq!(found.web, Some(wanted), "{build}");
        assert!(found.has_node && found.build.is_some());
    }
    // Of a library, or of a page that is there, nobody knows.
    assert!(readings_of(&[("package.json", &package("tsc")), ("tsconfig.json", "")]).is_empty());
}

#[test]
fn one_program_is_started_and_several_are_not_guessed_at() {
    let found = chosen(&[("serve.sh", "#!/bin/sh\n"), ("README", "text")]);
    assert_eq!(found.web, Some(Web::Command("./serve.sh".into())));
    assert!(readings_of(&[("a.sh", "#!/bin/sh\n"), ("b.sh", "#!/bin/sh\n")]).is_empty());
}

#[test]
fn a_directory_with_nothing_is_told_what_was_looked_for() {
    let problem = choose(&readings_of(&[("README", "x")]), None, Path::new("dir")).unwrap_err();
    let text = problem.to_string();
    assert!(text.contains("a Procfile") && text.contains("mfserv new"), "{text}");
}

/// The list that is used of these files, or why none is.
fn list_of(files: &[&str]) -> Result<Option<String>, Diagnostic> {
    let files: Vec<(&str, &str)> = files.iter().map(|file| (*file, "")).collect();
    let listing = Listing::of(&files);
    let packages = python_packages(&listing, "").unwrap();
    other_lists(&listing, &packages).map(|()| packages.file)
}

#[test]
fn packages_that_only_another_tool_knows_are_refused_with_its_export_command() {
    let problem = list_of(&["app.py", "Pipfile"]).unwrap_err();
    assert!(problem.to_string().contains("pipenv lock"), "{problem}");
    let lists = ["Pipfile", "requirements.txt"];
    assert_eq!(list_of(&lists).unwrap().as_deref(), Some("requirements.txt"));
    let lists = ["uv.lock", "pyproject.toml", "requirements.txt"];
    assert_eq!(list_of(&lists).unwrap().as_deref(), Some("uv.lock"));
}

#[test]
fn of_lists_for_several_purposes_that_of_servers_is_used_and_none_is_guessed() {
    let names = |names: &str| -> Vec<String> {
        let path = |name: &str| match name.split_once('!') {
            Some((_, top)) => top.to_string(),
            None => format!("requirements/{name}.txt"),
        };
        std::iter::once("app.py".into()).chain(names.split(' ').map(path)).collect()
    };
    for (files, wanted) in [
        ("production base dev", "requirements/production.txt"),
        ("prod base local test", "requirements/prod.txt"),
        ("base dev docs", "requirements/base.txt"),
        ("web dev test", "requirements/web.txt"),
        ("production !requirements.txt", "requirements.txt"),
        ("production !poetry.lock", "poetry.lock"),
        // It may have the options of tools alone.
        ("production !pyproject.toml", "requirements/production.txt"),
        ("web worker !pyproject.toml", "pyproject.toml"),
        ("typing !pyproject.toml", "pyproject.toml"),
    ] {
        let files = names(files);
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        assert_eq!(list_of(&files).unwrap().as_deref(), Some(wanted), "{files:?}");
    }
    assert_eq!(
        list_of(&["app.py", "requirements/dev.txt", "requirements/test.txt"]).unwrap(),
        None
    );
    for several in ["production prod base", "web worker", "web worker jobs"] {
        let files = names(several);
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let text = list_of(&files).unwrap_err().to_string();
        assert!(text.contains("there are several lists: requirements/"), "{several}: {text}");
        assert!(text.contains("the line `-r requirements/"), "{several}: {text}");
        let number = text.matches(".txt").count();
        // Each once; then the one that is proposed, and those that need nothing.
        assert_eq!(number, several.split(' ').count() + 4, "{several}: {text}");
    }
    // The framework is named in what the list begins with.
    let found = chosen(&[
        ("app.py", "def create_app():\n"),
        ("requirements/base.txt", "fastapi\n"),
        ("requirements/production.txt", "-r base.txt\ngunicorn\n"),
    ]);
    assert_eq!(found.title, "a FastAPI app");
    let packages = chosen(&[("back/app.py", FLASK), ("back/requirements/prod.txt", "flask\n")]);
    let packages = packages.python.unwrap();
    let wanted = (Some("requirements/prod.txt"), "back");
    assert_eq!((packages.file.as_deref(), &packages.dir[..]), wanted);
}
