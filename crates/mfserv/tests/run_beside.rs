//! What runs beside the workers of an app (`run`, `shell`, `exec`) has what they have: directory,
//! variables, language.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use mfserv_testkit::{Node, Plugin, programs};

use crate::{Turn, node};

/// An app that says what it was started with.
const WEB: &str = "\
import http.server, os

class Exchange(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ['MODE'].encode())
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Exchange).serve_forever()
";
const MANAGE: &str = "\
import os, sys
print(' '.join(sys.argv), 'MODE:', os.environ.get('MODE'), 'PLACE:', os.environ.get('PLACE'))
";
const PROCFILE: &str = "\
web: MODE=\"of web\" python3 web.py
tasks: PLACE=tasks python3 -c 'import time; time.sleep(1000)'
";

/// An app of a Procfile.
fn project(node: &Node) -> PathBuf {
    let dir = node.path("apps/project");
    std::fs::create_dir_all(&dir).unwrap();
    for (file, text) in [("web.py", WEB), ("manage.py", MANAGE), ("Procfile", PROCFILE)] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    dir
}

/// What a command says that reads nothing.
#[track_caller]
fn said(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// Both a developed and a deployed one.
#[track_caller]
fn is_beside(node: &Node) {
    assert_eq!(node.get("/project").text(), "of web");
    let asks = ["python3", "manage.py", "migrate"];
    let of_web = "manage.py migrate MODE: of web PLACE: None\n";
    for words in [&["run", "project"][..], &["run", "project.main"]] {
        assert_eq!(said(node.command(&[words, &asks].concat())), of_web, "{words:?}");
    }
    let of_tasks = said(node.command(&[&["run", "project.tasks"], &asks[..]].concat()));
    assert_eq!(of_tasks, "manage.py migrate MODE: None PLACE: tasks\n");
    // It is where its caller is.
    let exec = ["exec", "project", "sh", "-c", "echo $MODE; pwd"];
    let here = node.path("").canonicalize().unwrap();
    assert_eq!(said(node.command(&exec)), format!("of web\n{}\n", here.display()));
}

#[test]
fn beside_an_app_of_a_procfile_is_in_its_directory_with_the_variables_of_its_line() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = project(&node);
    let path = dir.to_str().unwrap();
    node.mfserv(&["dev", "--detach", path]).code(0);
    is_beside(&node);
    let of_directory = said(node.command(&["run", path, "python3", "manage.py", "x"]));
    assert_eq!(of_directory, "manage.py x MODE: of web PLACE: None\n");
    node.mfserv(&["deploy", path]).code(0);
    is_beside(&node);
    node.stop();
}

#[test]
fn a_shell_beside_an_app_of_a_procfile_speaks_its_language() {
    let _turn = Turn::heavy();
    let node = node();
    let dir = project(&node);
    std::fs::write(dir.join("requirements.txt"), "").unwrap();
    node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
    assert_eq!(
        said(node.command(&["shell", "project"])),
        "manage.py shell MODE: of web PLACE: None\n"
    );
}

#[test]
fn beside_an_app_is_what_env_sets_for_its_workers_and_the_language_of_the_node() {
    let _turn = Turn::cheap();
    let node = node();
    let line =
        "env -C below A=1 PYTHONUNBUFFERED=1 python3 {plugin_dir}/main.py {unix_socket_path}";
    let one = Plugin::python("one", programs::SERVES).key("app_main", "_cmd_and_args", line);
    let dir = node.add(&one);
    std::fs::create_dir(dir.join("below")).unwrap();
    let mut start = node.command(&["start"]);
    start.env("LANG", "of_node").env_remove("LC_ALL").env("TZ", "Etc/GMT+1");
    said(start);
    let asks = ["sh", "-c", "echo $A $LANG ${LC_ALL-none} $TZ $TERM"];
    for command in ["run", "exec"] {
        let mut command = node.command(&[&[command, "one"], &asks[..]].concat());
        command.env("LANG", "of_caller").env("LC_ALL", "C").env("TZ", "UTC").env("TERM", "mine");
        assert_eq!(said(command), "1 of_node none Etc/GMT+1 mine\n");
    }
    std::fs::remove_dir(dir.join("below")).unwrap();
    let gone = node.mfserv(&["run", "one", "true"]).code(126);
    let why = ["true cannot be run in ", "/below", "no such directory"];
    assert!(why.iter().all(|part| gone.stderr.contains(part)), "{gone:?}");
    node.stop();
}

#[test]
fn a_pip_of_another_python_is_refused_also_as_a_module() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = project(&node);
    std::fs::write(dir.join("requirements.txt"), "").unwrap();
    node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
    for command in ["run", "exec"] {
        for words in [&["python", "-m", "pip", "list"][..], &["python3", "-I", "-mpip", "list"]] {
            let ran = node.mfserv(&[&[command, "project", "--"], words].concat()).code(2);
            assert!(ran.stderr.contains("pip is not run here"), "{ran:?}");
            assert!(ran.stderr.contains("requirements.txt"), "{ran:?}");
        }
        node.mfserv(&[command, "project", "--", "python", "-m", "site"]).code(0);
    }
}
