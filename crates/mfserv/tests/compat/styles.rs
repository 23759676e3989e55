//! Plugins as people have written them for the versions of MFSERV: they work, or their refusal
//! says what to do.

use std::path::Path;
use std::process::Command;

use mfserv_testkit::{Plugin, get, until};

use super::OldNames;
use crate::python2::old_package;
use crate::{PATIENCE, Turn, node};

/// The layers that the templates of Python name.
const PYTHON: &str = "python3@mfext\nroot@mfserv\n-python3_devtools@mfext\n-python3_vim@mfext\n\
                      -scientific_core@mfext\n-python3_scientific@mfext\n";

const ABOUT: &str = "[general]
_version=0.0.1
_summary=one line
_license=MIT
_url=http://x
_maintainer=me <me@example.org>
_vendor=Vendor
";

const FRAGMENTS: &str = "_extra_nginx_http_conf_filename=null
_extra_nginx_server_conf_filename=null
_extra_nginx_init_worker_by_lua_block_filename=null
";

/// What the app section of each version has besides the command.
const APP: &str = "
smart_stop_signal=15
smart_stop_delay=3
smart_start_delay=3
numprocesses={{MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2}}
timeout=0
debug=0
_debug_extra_options=--debug --debug-evalex
_prefix_based_routing=true
_virtualdomain_based_routing=false
_static_routing=true
_static_url_prefix=/static
_static_directory=/static
prefix_based_routing_extra_routes=null
virtualdomain_based_routing_extra_vhosts=null
_extra_nginx_conf_filename=null
_extra_nginx_conf_static_filename=null
_http_test_endpoint=null
_http_test_expected_status_code=200
_http_test_expected_body=OK
_http_test_timeout=10
rlimit_as = 1000000000
rlimit_nofile = 1000
rlimit_stack = 10000000
rlimit_fsize = 100000000
max_age = 0
log_split_stdout_stderr=AUTO
log_split_multiple_workers=AUTO
[custom]
";

const WSGI: &str = "[app_main]
_cmd_and_args = bjoern_wrapper.py {debug_extra_options} --timeout={timeout} {app_name}.wsgi:application \"{unix_socket_path}\"";

fn of(name: &str, version: &str, config: &str) -> Plugin {
    Plugin::new(name)
        .file(".layerapi2_dependencies", PYTHON)
        .file(".plugin_format_version", &format!("{version}\n"))
        .file("Makefile", "include $(MFEXT_HOME)/share/plugin.mk\n")
        .config(config)
}

/// A plugin of the template `python3_raw_wsgi` as this version made it.
fn wsgi(name: &str, version: &str) -> Plugin {
    let lua = "_add_plugin_dir_to_lua_path=false\n_add_plugin_dir_to_python_path=true\n";
    let (release, gateway) = match version {
        "1.0.14" | "2.0.7" => ("", ""),
        _ => ("_release=1\n", "\n_gateway_interface_mode=proxy"),
    };
    let program = format!(
        "def application(environ, start_response):\n    \
         start_response('200 OK', [('Content-Type', 'text/plain')])\n    \
         return [b'made with {version}']\n"
    );
    of(name, version, &[ABOUT, release, FRAGMENTS, lua, WSGI, gateway, APP].concat())
        .file("main/__init__.py", "")
        .file("main/wsgi.py", &program)
        .file("python3_virtualenv_sources/requirements-to-freeze.txt", "# nothing\n")
}

/// A site of files with a fragment of nginx for them.
fn site() -> Plugin {
    let config = format!(
        "{ABOUT}{FRAGMENTS}[app_main]\n_static_url_prefix=\n_static_directory=\n\
         _prefix_based_routing=true\n_static_routing=true\n\
         _extra_nginx_conf_static_filename=static.conf\n[custom]\n"
    );
    of("site", "1.0.3", &config)
        .file("static.conf", "gzip_static on;\nexpires 1h;\n")
        .file("main/index.html", "the site")
}

/// A Django project that its developer keeps in the plugin.
fn django() -> Plugin {
    let command = "[app_main]\n_cmd_and_args = bjoern_wrapper.py --timeout={timeout} \
                   project.wsgi:application \"{unix_socket_path}\"";
    let settings = "import os\nSECRET_KEY = 'x'\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'project.urls'\n\
                    STATIC_URL = '/shop/main/static/'\nFORCE_SCRIPT_NAME = '/shop'\n";
    let urls = "from django.http import HttpResponse\nfrom django.urls import path\n\n\
                urlpatterns = [path('shop/api/', lambda request: HttpResponse('of Django'))]\n";
    let serve = "import os\nfrom django.core.wsgi import get_wsgi_application\n\n\
                os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'project.settings')\n\
                application = get_wsgi_application()\n";
    of("shop", "1.0.14", &[ABOUT, FRAGMENTS, command, APP].concat())
        .file("project/__init__.py", "")
        .file("project/settings.py", settings)
        .file("project/urls.py", urls)
        .file("project/wsgi.py", serve)
        .file("main/static/style.css", "body {}\n")
        .file("python3_virtualenv_sources/requirements-to-freeze.txt", "Django>=4.2\n")
}

/// Jobs in Python with a library of their own from git.
fn jobs() -> Plugin {
    let crontab = "0 0 1 1 * {{MFSERV_HOME}}/bin/cronwrap.sh --lock -- plugin_wrapper \
                   {{MFSERV_CURRENT_PLUGIN_NAME}} -- python -c 'import eels; print(eels.VALUE)'\n";
    let setup =
        "from setuptools import setup\nsetup(name='eels', version='1.2', py_modules=['eels'])\n";
    of("cron", "1.0.5", &format!("{ABOUT}[custom]\n"))
        .file("crontab", crontab)
        .file("vendor/eels/setup.py", setup)
        .file("vendor/eels/eels.py", "VALUE = 'slippery'\n")
        .file(
            "python3_virtualenv_sources/requirements-to-freeze.txt",
            "-e git+file://${PWD}/vendor/eels@main#egg=eels\n",
        )
}

fn git(dir: &Path, words: &[&str]) {
    let mut command = Command::new("git");
    // Whoever runs the tests may sign all commits.
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    command.arg("-C").arg(dir).args(["-c", "user.email=a@example.org", "-c", "user.name=a"]);
    assert!(command.args(words).status().unwrap().success());
}

#[test]
fn plugins_in_the_styles_of_all_versions_are_built_packed_installed_and_serve() {
    let _turn = Turn::heavy();
    let node = node();
    let old = OldNames::new(&node);
    old.run(&["mfserv.start"]).code(0);
    // As they are packed by MFSERV itself: nothing of them is frozen here.
    for (name, version) in
        [("one", "1.0.14"), ("two", "2.0.7"), ("three", "2.2.15"), ("four", "2.3.0")]
    {
        let dir = wsgi(name, version).write(&old.work());
        old.run(&["plugins.check", &dir.to_string_lossy()]).code(0);
        let package = old_package(&dir);
        old.run(&["plugins.install", &package.to_string_lossy()]).code(0);
        assert_eq!(node.get(&format!("/{name}/x")).text(), format!("made with {version}"));
        old.run(&["plugins.uninstall", name]).code(0);
    }
    let cron = jobs().write(&old.work());
    git(&cron.join("vendor/eels"), &["init", "--quiet", "--initial-branch=main"]);
    git(&cron.join("vendor/eels"), &["add", "--all"]);
    git(&cron.join("vendor/eels"), &["commit", "--quiet", "--message=x"]);
    // The file that tells the format came with 1.0.
    let format = cron.join(".plugin_format_version");
    std::fs::remove_file(&format).unwrap();
    let ran = old.run(&["plugins.check", &cron.to_string_lossy()]).code(1);
    assert!(ran.stderr.contains("write the version of the framework"), "{ran:?}");
    std::fs::write(&format, "1.0.5\n").unwrap();
    for dir in [&site().write(&old.work()), &django().write(&old.work()), &cron] {
        let ran = old.run_in(dir, &["make", "release"]).code(0);
        let is_site = dir.ends_with("site");
        assert_eq!(ran.stderr.contains("fragments of nginx need nginx"), is_site, "{ran:?}");
        old.run_in(dir, &["sh", "-ec", "plugins.install \"$(ls *.plugin)\""]).code(0);
    }
    let page = |path: &str| get(node.address(), path).map_or(String::new(), |page| page.text());
    assert_eq!(page("/site/"), "the site");
    until("Django answers", PATIENCE, || page("/shop/api/") == "of Django");
    assert_eq!(page("/shop/main/static/style.css"), "body {}\n");
    let ran = node.mfserv(&["jobs", "run", "cron.crontab:1", "--wait"]).code(0);
    assert!(ran.stdout.contains("slippery"), "{ran:?}");
    old.run(&["mfserv.stop"]).code(0);
}

/// A plugin of the first format, whose app has this type.
fn of_before_1_0(name: &str, kind: &str) -> Plugin {
    let config = format!(
        "[INCLUDE_config.ini]\n[general]\nname={name}\ntype={kind}\nversion=0.9.1\nsummary=one line\n\
         license=MIT\nurl=http://x\npackager=me\nvendor=Vendor\nextra_nginx_conf_filename=null\n\
         redis_service=0\n[app_main]\ntype={kind}\nmain_arg=main.wsgi:app\ngunicorn_arg=--threads=2\n\
         workers=4\ntimeout=60\nrlimit_core=0\nadd_plugin_dir_to_python_path=1\n\
         [extra_daemon_x]\ncmd_and_args=x.sh\n[redis_service]\nport=1\n"
    );
    Plugin::new(name).config(&config).file(".layerapi2_dependencies", PYTHON)
}

/// The lines of the help for each key of [`of_before_1_0`], in the order of the file.
const HELP: &[&str] = &[
    "the name of a plugin is in .layerapi2_label",
    "a plugin has no type any more: remove it",
    "the key is now _version, ",
    "the key is now _summary, ",
    "the key is now _license, ",
    "the key is now _url, ",
    "the key is now _maintainer",
    "the key is now _vendor, ",
    "the key is now _extra_nginx_conf_filename of [app_NAME]",
    "modules run no redis any more",
    "write the whole _cmd_and_args",
    "write the whole _cmd_and_args",
    "gunicorn is an ordinary program now: write the whole _cmd_and_args",
    "the key is now numprocesses",
    "there is no rlimit_core: remove it",
    "the key is now _add_plugin_dir_to_python_path of [general]",
    "the key is now _cmd_and_args, ",
    "when modules ran redis",
];

#[test]
fn plugins_of_before_1_0_are_refused_with_what_each_key_is_called_now_each_once() {
    let _turn = Turn::cheap();
    let node = node();
    for (name, kind) in [
        ("flask0", "python3_flask"),
        ("django0", "gunicorn3_django"),
        ("gunicorn0", "gunicorn3_sync"),
        ("aiohttp0", "gunicorn3_asyncio"),
    ] {
        let dir = of_before_1_0(name, kind).write(&node.path("work"));
        let format = dir.join(".plugin_format_version");
        std::fs::remove_file(&format).unwrap();
        let check = || node.mfserv(&["check", &dir.to_string_lossy()]).code(4).stderr;
        let said = check();
        assert!(said.contains("this is probably an old and incompatible plugin"), "{said}");
        assert!(said.contains("its config.ini has the format of before 1.0"), "{said}");
        assert!(said.contains("config.ini:5") && said.contains("`mfserv new`"), "{said}");
        assert!(!said.contains("write the version of"), "{said}");
        // Who writes it all the same learns of each key.
        std::fs::write(&format, "2.0.0\n").unwrap();
        let said = check();
        let help: Vec<&str> =
            said.lines().filter_map(|line| line.trim().strip_prefix("help: ")).collect();
        assert_eq!(help.len(), HELP.len(), "{said}");
        for (line, expected) in help.iter().zip(HELP) {
            assert!(line.contains("before 1.0") && line.contains(expected), "{expected}: {said}");
        }
    }
}
