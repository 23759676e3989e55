//! The templates: what each of them is made of.

/// A template of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    /// The name, as given to `mfserv new --template`.
    pub name: &'static str,
    /// One line about it.
    pub summary: &'static str,
    /// It needs nginx as the front: the front that is built in knows no fragments and no Lua.
    pub needs_nginx: bool,
    /// `python`, `node`, `php`, `openresty` or `static`.
    pub(super) kind: &'static str,
    /// It has an app; else only daemons and jobs.
    pub(super) web: bool,
    pub(super) command: &'static str,
    pub(super) debug_options: &'static str,
    pub(super) stop_signal: i32,
    /// Its server keeps connections, which its command does not tell.
    pub(super) keep_alive: bool,
    /// Names that a plugin made from it can not have, and why.
    pub(super) refused_names: &'static [(&'static str, &'static str)],
    /// Lines added to .gitignore and .releaseignore: what is made at the place.
    pub(super) made: &'static str,
    /// Its own files, which replace shared ones of the same path.
    pub(super) files: &'static [Source],
}

impl Template {
    /// Why a plugin made from it cannot have this name, if it cannot.
    pub fn refuses(&self, name: &str) -> Option<&'static str> {
        self.refused_names.iter().find(|(refused, _)| *refused == name).map(|(_, why)| *why)
    }
}

/// A file of a template: where it goes (`NAME` stands for the plugin name), its
/// text, whether the text is rendered, whether the file is a program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: &'static str,
    pub(super) text: &'static str,
    pub(super) rendered: bool,
    pub(super) program: bool,
}

const fn plain(path: &'static str, text: &'static str) -> Source {
    Source { path, text, rendered: false, program: false }
}

const fn rendered(path: &'static str, text: &'static str) -> Source {
    Source { path, text, rendered: true, program: false }
}

const fn program(path: &'static str, text: &'static str) -> Source {
    Source { path, text, rendered: true, program: true }
}

/// What every template has.
pub(super) const SHARED: &[Source] = &[
    rendered("config.ini", include_str!("../../templates/shared/config.ini")),
    rendered(
        ".layerapi2_dependencies",
        include_str!("../../templates/shared/layerapi2_dependencies"),
    ),
    plain(".releaseignore", include_str!("../../templates/shared/releaseignore")),
    plain(".autorestart_includes", include_str!("../../templates/shared/autorestart_includes")),
    plain(".autorestart_excludes", include_str!("../../templates/shared/autorestart_excludes")),
    plain(".gitignore", include_str!("../../templates/shared/gitignore")),
    plain("Makefile", include_str!("../../templates/shared/Makefile")),
];

const CRONTAB: Source = rendered("crontab", include_str!("../../templates/shared/crontab"));
const README: Source = rendered("bin/README", include_str!("../../templates/noweb/README"));
const MAIN_PACKAGE: Source = plain("main/__init__.py", "");
/// Any binary wheel may be installed.
const BINARY: Source = plain("python3_virtualenv_sources/allow_binary_packages", "");
/// The Python packages of a template that needs none: comments only.
const NO_REQUIREMENTS: Source =
    requirements(include_str!("../../templates/python3_raw_wsgi/requirements-to-freeze.txt"));

const fn requirements(text: &'static str) -> Source {
    plain("python3_virtualenv_sources/requirements-to-freeze.txt", text)
}

/// A Python web app; the templates change what is different.
const PYTHON: Template = Template {
    name: "",
    summary: "",
    needs_nginx: false,
    kind: "python",
    web: true,
    command: "",
    debug_options: "",
    stop_signal: 15,
    keep_alive: false,
    refused_names: &[],
    made: "",
    files: &[],
};

/// A Node app.
const NODE: Template = Template { kind: "node", ..PYTHON };

const WSGI_DEBUG: &str = "--debug --debug-evalex";
const ASGI: &str = "mfserv_worker {debug_extra_options} --asgi --timeout={timeout} {app_name}.application:app \"{unix_socket_path}\"";
const ASGI_DEBUG: &str = "--debug";
const APPLICATION: &str =
    "python {plugin_dir}/{app_name}/application.py \"{unix_socket_path}\" {timeout}";

pub(super) const TEMPLATES: &[Template] = &[
    Template {
        name: "node",
        summary: "a web app with Node and Express",
        command: "node {debug_extra_options} \"{plugin_dir}/{plugin_name}/server.js\" \"{unix_socket_path}\" {timeout}",
        // port 0: any free one, so that two apps in debug mode do not collide; node logs it
        debug_options: "--inspect=127.0.0.1:0",
        files: &[
            CRONTAB,
            rendered("NAME/server.js", include_str!("../../templates/node/server.js")),
            rendered("package.json", include_str!("../../templates/node/package.json")),
        ],
        ..NODE
    },
    Template {
        name: "node_noweb",
        summary: "daemons and jobs with Node, no web app",
        web: false,
        files: &[
            CRONTAB,
            README,
            rendered("package.json", include_str!("../../templates/noweb/package.json")),
        ],
        ..NODE
    },
    Template {
        name: "openresty",
        summary: "Lua inside of nginx, where that is the front",
        needs_nginx: true,
        kind: "openresty",
        files: &[
            CRONTAB,
            rendered("config.ini", include_str!("../../templates/openresty/config.ini")),
            plain(
                "nginx_extra_http.conf",
                include_str!("../../templates/openresty/nginx_extra_http.conf"),
            ),
            plain(
                "nginx_extra_server.conf",
                include_str!("../../templates/openresty/nginx_extra_server.conf"),
            ),
            plain(
                "init_worker_by_lua.lua",
                include_str!("../../templates/openresty/init_worker_by_lua.lua"),
            ),
            plain(
                "content_by_lua.lua",
                include_str!("../../templates/openresty/content_by_lua.lua"),
            ),
        ],
        ..PYTHON
    },
    Template {
        name: "php",
        summary: "a web app with PHP, by the php-fpm of this machine",
        kind: "php",
        command: "php_wrapper {plugin_name} {app_name} \"{unix_socket_path}\"",
        stop_signal: 3,
        files: &[
            CRONTAB,
            rendered("main/index.php", include_str!("../../templates/php/index.php")),
        ],
        ..PYTHON
    },
    Template {
        name: "python3_aiohttp",
        summary: "a web app with Python and aiohttp",
        command: APPLICATION,
        keep_alive: true,
        files: &[
            CRONTAB,
            plain(
                "main/application.py",
                include_str!("../../templates/python3_aiohttp/application.py"),
            ),
            NO_REQUIREMENTS,
            BINARY,
        ],
        ..PYTHON
    },
    Template {
        name: "python3_django",
        summary: "a web app with Python and Django, with a database",
        command: "bjoern_wrapper.py {debug_extra_options} --timeout={timeout} {plugin_name}.wsgi:application \"{unix_socket_path}\"",
        stop_signal: 2,
        refused_names: &[
            ("main", "you cant use main as plugin name because we create a default app named main"),
            ("django", "the Python package django would be hidden by the plugin's own"),
        ],
        made: "/main/static/admin/\n",
        files: &[
            CRONTAB,
            MAIN_PACKAGE,
            plain("main/apps.py", include_str!("../../templates/python3_django/apps.py")),
            plain("main/migrations/__init__.py", ""),
            plain("main/models.py", include_str!("../../templates/python3_django/models.py")),
            plain("main/urls.py", include_str!("../../templates/python3_django/main_urls.py")),
            plain("main/views.py", include_str!("../../templates/python3_django/views.py")),
            program("manage.py", include_str!("../../templates/python3_django/manage.py")),
            plain("NAME/__init__.py", ""),
            rendered(
                "NAME/settings.py",
                include_str!("../../templates/python3_django/settings.py"),
            ),
            rendered("NAME/urls.py", include_str!("../../templates/python3_django/urls.py")),
            rendered("NAME/wsgi.py", include_str!("../../templates/python3_django/wsgi.py")),
            program("postinstall", include_str!("../../templates/python3_django/postinstall")),
            plain("Makefile", include_str!("../../templates/python3_django/Makefile")),
            requirements(include_str!("../../templates/python3_django/requirements-to-freeze.txt")),
            BINARY,
        ],
        ..PYTHON
    },
    Template {
        name: "python3_fastapi",
        summary: "a web app with Python and FastAPI",
        command: ASGI,
        debug_options: ASGI_DEBUG,
        files: &[
            CRONTAB,
            MAIN_PACKAGE,
            rendered(
                "main/application.py",
                include_str!("../../templates/python3_fastapi/application.py"),
            ),
            requirements(include_str!(
                "../../templates/python3_fastapi/requirements-to-freeze.txt"
            )),
            BINARY,
        ],
        ..PYTHON
    },
    Template {
        name: "python3_flask",
        summary: "a web app with Python and Flask",
        command: "bjoern_wrapper.py {debug_extra_options} --timeout={timeout} {app_name}.wsgi:app \"{unix_socket_path}\"",
        debug_options: WSGI_DEBUG,
        stop_signal: 2,
        files: &[
            CRONTAB,
            MAIN_PACKAGE,
            rendered("main/wsgi.py", include_str!("../../templates/python3_flask/wsgi.py")),
            requirements(include_str!("../../templates/python3_flask/requirements-to-freeze.txt")),
            BINARY,
        ],
        ..PYTHON
    },
    Template {
        name: "python3_noweb",
        summary: "daemons and jobs with Python, no web app",
        web: false,
        files: &[CRONTAB, README, NO_REQUIREMENTS, BINARY],
        ..PYTHON
    },
    Template {
        name: "python3_raw_asgi",
        summary: "a web app with Python and nothing else (ASGI)",
        command: ASGI,
        debug_options: ASGI_DEBUG,
        files: &[
            CRONTAB,
            MAIN_PACKAGE,
            plain(
                "main/application.py",
                include_str!("../../templates/python3_raw_asgi/application.py"),
            ),
            requirements(include_str!(
                "../../templates/python3_raw_asgi/requirements-to-freeze.txt"
            )),
            BINARY,
        ],
        ..PYTHON
    },
    Template {
        name: "python3_raw_wsgi",
        summary: "a web app with Python and nothing else (WSGI)",
        command: "bjoern_wrapper.py {debug_extra_options} --timeout={timeout} {app_name}.wsgi:application \"{unix_socket_path}\"",
        debug_options: WSGI_DEBUG,
        stop_signal: 2,
        files: &[
            CRONTAB,
            MAIN_PACKAGE,
            plain("main/wsgi.py", include_str!("../../templates/python3_raw_wsgi/wsgi.py")),
            NO_REQUIREMENTS,
            BINARY,
        ],
        ..PYTHON
    },
    Template {
        name: "python3_tornado",
        summary: "a web app with Python and Tornado",
        command: APPLICATION,
        keep_alive: true,
        files: &[
            CRONTAB,
            plain(
                "main/application.py",
                include_str!("../../templates/python3_tornado/application.py"),
            ),
            requirements(include_str!(
                "../../templates/python3_tornado/requirements-to-freeze.txt"
            )),
            BINARY,
        ],
        ..PYTHON
    },
    Template {
        name: "static",
        summary: "files served as they are",
        kind: "static",
        files: &[rendered("main/index.html", include_str!("../../templates/static/index.html"))],
        ..PYTHON
    },
];

/// The plugin `welcome`.
pub(super) const WELCOME: &[Source] = &[
    plain("config.ini", include_str!("../../templates/welcome/config.ini")),
    plain(".layerapi2_dependencies", "root@mfserv\n"),
    plain("main/index.html", include_str!("../../templates/welcome/main/index.html")),
    plain("main/404.html", include_str!("../../templates/welcome/main/404.html")),
];
