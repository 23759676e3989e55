//! Databases of existing apps: the developer's stay at home, and those of the deployed app outlive its
//! releases.

use std::path::Path;

use mfserv_testkit::Node;

use crate::newcomer::app;
use crate::{Turn, node};

/// Counts the rows of a database of SQLite; `/add` adds one. With a directory in argument the same file is
/// filled before.
const ROWS: &str = "\
import os, sqlite3, sys

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'instance')

def rows(more):
    os.makedirs(HERE, exist_ok=True)
    with sqlite3.connect(os.path.join(HERE, 'app.db')) as db:
        db.execute('create table if not exists r (n integer)')
        for n in range(more):
            db.execute('insert into r values (?)', (n,))
        return db.execute('select count(*) from r').fetchone()[0]

def app(environ, start_response):
    start_response('200 OK', [])
    return [str(rows(environ['PATH_INFO'] == '/add')).encode()]

if __name__ == '__main__':
    rows(int(sys.argv[1]))
";

#[track_caller]
fn deploy(node: &Node, dir: &Path, more: &[&str]) -> String {
    let ran = node.mfserv(&[&["deploy", dir.to_str().unwrap()], more].concat()).code(0);
    format!("{}{}", ran.stdout, ran.stderr)
}

/// The developer works with some rows.
fn work(dir: &Path, rows: &str) {
    let mut python = std::process::Command::new("python3");
    assert!(python.arg(dir.join("src/app.py")).arg(rows).status().unwrap().success());
}

fn edit(dir: &Path, text: &str) {
    std::fs::write(dir.join("src/app.py"), format!("{ROWS}# {text}\n")).unwrap();
}

#[test]
fn rows_of_the_deployed_app_stay_whatever_its_developer_has_in_the_same_database() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = app(&node, "rows", &[("src/app.py", ROWS)]);
    work(&dir, "7");
    let db = "src/instance/app.db";
    // As before databases were recognised: it is in the release.
    deploy(&node, &dir, &["--pack", db]);
    assert_eq!(node.get("/add").text(), "8");
    work(&dir, "20");
    edit(&dir, "two");
    let text = deploy(&node, &dir, &[]);
    assert!(
        text.contains(&format!("not deployed: {db} (the app has its own data there)")),
        "{text}"
    );
    assert_eq!(node.get("/add").text(), "9", "the rows of the release before are taken over");
    // A developer who has none any more, or works in a new clone.
    std::fs::remove_file(dir.join(db)).unwrap();
    edit(&dir, "three");
    deploy(&node, &dir, &[]);
    assert_eq!(node.get("/").text(), "9");
    work(&dir, "1");
    let path = dir.to_str().unwrap();
    for (more, says) in [
        (["--no-persist", db], "--pack src/instance/app.db"),
        (["--persist", "src"], "it has src/app.py, which is code of the app"),
    ] {
        let ran = node.mfserv(&[&["deploy", path][..], &more].concat()).code(2);
        assert!(ran.stderr.contains(says), "{ran:?}");
    }
    deploy(&node, &dir, &["--no-persist", db, "--pack", db]);
    assert_eq!(node.get("/").text(), "1", "it is asked for");
    node.stop();
}

#[test]
fn the_advice_for_a_database_below_the_code_keeps_it_and_freezes_no_code() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = app(&node, "late", &[("src/app.py", ROWS)]);
    deploy(&node, &dir, &[]);
    assert_eq!(node.get("/add").text(), "1");
    edit(&dir, "two");
    let text = deploy(&node, &dir, &[]);
    assert!(text.contains("`mfserv deploy DIR --persist src/instance`"), "{text}");
    node.mfserv(&["rollback", "late"]).code(0);
    deploy(&node, &dir, &["--persist", "src/instance"]);
    assert_eq!(node.get("/").text(), "1");
    std::fs::write(dir.join("src/app.py"), ROWS.replace("[str(rows", "[b'n' + str(rows")).unwrap();
    deploy(&node, &dir, &[]);
    assert_eq!(node.get("/").text(), "n1");
    node.stop();
}
