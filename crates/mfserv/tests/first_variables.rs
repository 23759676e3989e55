//! Variables that come with a release, the first one too: `mfserv deploy --env`, `--env-file`,
//! `--secret-file`; and of packages.

use std::path::{Path, PathBuf};

use mfserv_testkit::{Node, Ran};
use serde_json::{Value, json};

use crate::install::{edit, release};
use crate::newcomer::app;
use crate::variables::{files_with, show_nothing_of};
use crate::{Turn, node};

const SECRET: &str = "hush-0815-hush";

/// Neither its release step nor the app itself runs without TOKEN.
const RELEASE: &str = "\
import os
with open('../seen', 'w') as file:
    file.write(os.environ['MODE'] + ' ' + str(len(os.environ['TOKEN'])))
";
const WEB: &str = "\
import http.server, json, os

TOKEN = os.environ['TOKEN']
assert 'BREAKS' not in os.environ

class Exchange(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(os.environ)).encode())
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Exchange).serve_forever()
";

fn needy(node: &Node) -> PathBuf {
    let procfile = "release: python release.py\nweb: python web.py\n";
    app(node, "needy", &[("Procfile", procfile), ("release.py", RELEASE), ("web.py", WEB)])
}

fn deploy(node: &Node, dir: &Path, more: &str) -> Ran {
    let words = ["deploy", dir.to_str().unwrap()].into_iter().chain(more.split_whitespace());
    let ran = node.mfserv(&words.collect::<Vec<_>>());
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(SECRET), "{ran:?}");
    ran
}

/// What a worker of `needy` has, by name.
fn seen(node: &Node, name: &str) -> Option<String> {
    let all: Value = serde_json::from_str(&node.get("/needy/").text()).unwrap();
    all[name].as_str().map(str::to_owned)
}

fn release_step(node: &Node, number: u32) -> String {
    let file = format!("var/releases/needy/{number}/seen");
    std::fs::read_to_string(node.path(&file)).unwrap()
}

#[test]
fn an_app_that_needs_variables_is_deployed_with_them_in_one_command_and_keeps_them() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = needy(&node);
    let ran = deploy(&node, &dir, "--env MODE=slow");
    assert!(ran.code != 0 && ran.stderr.contains("mfserv deploy … --env TOKEN=VALUE"), "{ran:?}");
    assert!(!node.path("var/env/needy.json").exists(), "what did not start has set nothing");
    let ran = deploy(&node, &dir, "--env MODE=slow --json");
    let said: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    assert!(said["ok"] == json!(false) && said.get("variables_set").is_none(), "{said}");
    values_in_the_directory_are_not_packed(&node, &dir);

    let file =
        app(&node, "files", &[("vars", "MODE=file\nexport COLOUR=red # a comment\nPORT=1\n")]);
    let token = app(&node, "files", &[("token", &format!("{SECRET}\n"))]).join("token");
    let with = format!(
        "--env-file {} --secret-file TOKEN={} --env MODE=fast --json",
        file.join("vars").display(),
        token.display()
    );
    let ran = deploy(&node, &dir, &with);
    assert!(ran.code == 0 && ran.stderr.contains("PORT of vars is not used"), "{ran:?}");
    let last = ran.stdout.lines().last().unwrap();
    let said: Value = serde_json::from_str(last).unwrap();
    assert_eq!(said["variables_set"], json!(["COLOUR", "MODE", "TOKEN"]), "{said}");
    assert_eq!(release_step(&node, 1), format!("fast {}", SECRET.len()));
    assert_eq!(seen(&node, "TOKEN").as_deref(), Some(SECRET));
    assert_eq!(seen(&node, "COLOUR").as_deref(), Some("red"));

    shown_nowhere(&node);
    they_stay_and_go_back_with_their_release(&node, &dir, &with);
    node.stop();
}

/// A file with secret values is refused where it would be a part of the release.
fn values_in_the_directory_are_not_packed(node: &Node, dir: &Path) {
    let (file, env) = (dir.join("token"), dir.join(".env.production"));
    std::fs::write(&file, SECRET).unwrap();
    std::fs::write(&env, format!("WORD={SECRET}\nLONG={}\n", "x".repeat(140_000))).unwrap();
    let refused = deploy(node, dir, &format!("--secret-file TOKEN={}", file.display())).code(2);
    assert!(refused.stderr.contains("would be packed into the release"), "{refused:?}");
    let refused = deploy(node, dir, &format!("--env-file {}", file.display())).code(2);
    assert!(refused.stderr.contains(".env.production"), "{refused:?}");
    // This name is packed nowhere; a value that no process can have is refused by its name.
    let refused = deploy(node, dir, &format!("--env-file {}", env.display())).code(2);
    assert!(refused.stderr.contains("the value of LONG cannot be read"), "{refused:?}");
    for file in [file, env] {
        std::fs::remove_file(file).unwrap();
    }
}

fn shown_nowhere(node: &Node) {
    show_nothing_of(node, "needy", SECRET);
    let listed = node.mfserv(&["env", "list", "needy", "--json"]).code(0).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    // Of a file nobody knows what is secret in it.
    let of =
        |name: &str, value: Value| json!({"name": name, "secret": value.is_null(), "value": value});
    let wanted = [of("COLOUR", Value::Null), of("MODE", "fast".into()), of("TOKEN", Value::Null)];
    assert_eq!(listed["variables"], json!(wanted));
    for (file, mode) in files_with(node.home(), SECRET.as_bytes()) {
        let below = file.strip_prefix(node.home()).unwrap().to_owned();
        // The file that the secret was read from is the test's own.
        assert!(below.starts_with("apps/files") || mode & 0o077 == 0, "{below:?}");
        assert!(!below.starts_with("log") && !below.starts_with("tmp"), "{below:?}");
    }
}

fn they_stay_and_go_back_with_their_release(node: &Node, dir: &Path, first: &str) {
    let ran = deploy(node, dir, first);
    assert!(ran.code == 0 && ran.stdout.contains("nothing_to_do"), "{ran:?}");
    let ran = deploy(node, dir, "--env MODE=slow");
    assert!(ran.code == 0 && ran.stdout.contains("needy: set MODE"), "{ran:?}");
    assert_eq!(release_step(node, 2), format!("slow {}", SECRET.len()));
    assert_eq!(seen(node, "MODE").as_deref(), Some("slow"));
    // One that does not start has set nothing, and its number is free for another one.
    let ran = deploy(node, dir, "--env BREAKS=1 --env MODE=broken --timeout 20");
    assert!(ran.code != 0, "{ran:?}");
    let file = std::fs::read_to_string(node.path("var/env/needy.json")).unwrap();
    assert!(!file.contains("BREAKS") && !file.contains("broken"), "{file}");
    edit(&dir.join("web.py"), "send_response(200)", "send_response(203)");
    deploy(node, dir, "").code(0);
    assert_eq!((seen(node, "MODE").as_deref(), seen(node, "BREAKS")), (Some("slow"), None));
    node.mfserv(&["env", "set", "needy", "MODE=changed"]).code(0);
    node.mfserv(&["rollback", "needy", "1"]).code(0);
    assert_eq!(seen(node, "MODE").as_deref(), Some("fast"));
}

#[test]
fn a_package_gets_variables_with_its_first_release_also_where_no_node_runs() {
    let _turn = Turn::cheap();
    let node = node();
    let hook = "#!/bin/sh\nprintf %s \"$MODE\" > seen\n";
    let dir = mfserv_testkit::Plugin::python("vault", mfserv_testkit::programs::SERVES)
        .write(&node.path("work"));
    std::fs::write(dir.join("postinstall"), hook).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.join("postinstall"), executable).unwrap();
    let package = release(&node, &dir);
    let install = |more: &str| {
        let words = ["install", package.to_str().unwrap()].into_iter().chain(more.split(' '));
        node.mfserv(&words.collect::<Vec<_>>())
    };
    let ran = install("--env MODE=fast").code(0);
    assert!(ran.stdout.contains("vault: set MODE"), "{ran:?}");
    let by_hook = std::fs::read_to_string(node.path("var/releases/vault/1/seen")).unwrap();
    assert_eq!(by_hook, "fast");
    node.start();
    assert!(node.get("/vault/env").text().contains("\"MODE\": \"fast\""));
    for (more, says) in [
        ("--env PORT=1", "where the app listens"),
        ("--env A --env B", "another value is read from there"),
        ("--env A --secret-file B=-", "another value is read from there"),
        ("--secret-file A", "write KEY=FILE"),
        ("--secret-file A=/nowhere/a", "the value of A cannot be read from /nowhere/a"),
        ("--env-file /nowhere/a", "can't read /nowhere/a"),
    ] {
        let ran = install(more).code(2);
        assert!(ran.stderr.contains(says), "{more}: {ran:?}");
    }
    assert_eq!(node.mfserv(&["releases", "vault"]).code(0).stdout.matches("1.0.0").count(), 1);
    node.stop();
}
