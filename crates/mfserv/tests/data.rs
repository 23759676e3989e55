//! What an app has written outlives its releases, with the real Django template.

use std::path::{Path, PathBuf};

use mfserv_testkit::{Node, until};

use crate::install::{edit, install, release};
use crate::{PATIENCE, Turn, node};

/// Lists the names in the database, and adds one when asked to.
const VIEW: &str = r#"
from django.contrib.auth.models import User
from django.http import HttpResponse


def index(request):
    if "add" in request.GET:
        User.objects.create_user(request.GET["add"])
    return HttpResponse(" ".join(sorted(u.username for u in User.objects.all())))
"#;

/// A plugin of the template whose database is beside its code, as MFSERV had it.
fn plugin(node: &Node) -> PathBuf {
    std::fs::create_dir(node.path("work")).unwrap();
    let mut make = node.command(&["new", "--no-input", "--template", "python3_django", "names"]);
    assert!(make.current_dir(node.path("work")).output().unwrap().status.success());
    let dir = node.path("work/names");
    edit(&dir.join("names/settings.py"), "DATA_DIR / \"db.sqlite3\"", "BASE_DIR / \"db.sqlite3\"");
    std::fs::write(dir.join("main/views.py"), VIEW).unwrap();
    edit(&dir.join("config.ini"), "{{MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2}}", "1");
    dir
}

#[track_caller]
fn names(node: &Node, query: &str) -> String {
    until("django answers", PATIENCE, || node.get("/names/").status == 200);
    let answer = node.get(&format!("/names/{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

fn numbers(node: &Node) -> Vec<u32> {
    let entries = std::fs::read_dir(node.path("var/releases/names")).unwrap().flatten();
    let mut numbers: Vec<u32> =
        entries.filter_map(|one| one.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_declared_database_of_django_has_its_rows_when_its_first_releases_are_gone_and_after_a_rollback()
 {
    let _turn = Turn::heavy();
    let node = node();
    node.start();
    let dir = plugin(&node);
    edit(&dir.join("config.ini"), "[general]", "[general]\n_persistent_paths=db.sqlite3");
    let file = release(&node, &dir);
    install(&node, &file);
    let mut expected = vec!["eel00".to_string()];
    assert_eq!(names(&node, "?add=eel00"), "eel00");
    for number in 1..=6 {
        install(&node, &file);
        assert_eq!(names(&node, ""), expected.join(" "), "after installation {number}");
        expected.push(format!("eel{number:02}"));
        assert_eq!(names(&node, &format!("?add=eel{number:02}")), expected.join(" "));
    }
    assert_eq!(numbers(&node), [3, 4, 5, 6, 7]);
    assert!(node.path("var/data/names/db.sqlite3").is_file());
    node.mfserv(&["rollback", "names"]).code(0);
    assert_eq!(names(&node, ""), expected.join(" "), "after the rollback");
    node.stop();
}

#[test]
fn an_undeclared_database_of_django_is_reported_and_can_be_gone_back_to() {
    let _turn = Turn::heavy();
    let node = node();
    node.start();
    let file = release(&node, &plugin(&node));
    install(&node, &file);
    assert_eq!(names(&node, "?add=eel"), "eel");
    let ran = node.mfserv(&["install", "--force", &file.to_string_lossy()]).code(0);
    assert!(ran.stderr.contains("in its release 1: db.sqlite3"), "{ran:?}");
    assert!(ran.stderr.contains("_persistent_paths"), "{ran:?}");
    assert_eq!(names(&node, ""), "", "the new release has a database of its own");
    let kept = node.path("var/releases/names/1/db.sqlite3");
    assert!(kept.is_file());
    let has_row =
        |file: &Path| String::from_utf8_lossy(&std::fs::read(file).unwrap()).contains("eel");
    assert!(has_row(&kept));
    node.mfserv(&["rollback", "names", "1"]).code(0);
    assert_eq!(names(&node, ""), "eel");
    node.stop();
}
