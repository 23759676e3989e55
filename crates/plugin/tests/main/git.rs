//! Requirements from git: in all spellings, at their commit, and only from where it is allowed.

use std::fs;
use std::path::Path;
use std::process::Command;

use mfserv_core::Kind;

use crate::requirements::{LOOSE, Sample, import, project, write};
use crate::tree;

#[track_caller]
fn git(dir: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(["-c", "user.email=a@example.org", "-c", "user.name=a"]);
    command.args(["-c", "protocol.file.allow=always"]);
    let said = command.args(words).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap().trim().to_string()
}

/// Makes a repository of what is in a directory, with the tag `v1`. Returns the commit.
fn repository(dir: &Path) -> String {
    git(dir, &["init", "--quiet", "--initial-branch=main"]);
    committed(dir);
    git(dir, &["tag", "v1"]);
    git(dir, &["rev-parse", "HEAD"])
}

fn committed(dir: &Path) {
    git(dir, &["add", "--all"]);
    git(dir, &["commit", "--quiet", "--message=x"]);
}

/// What any HTTP server of files serves of a repository, on a port of this machine.
struct Server {
    process: crate::wsgi::End,
    address: String,
}

impl Server {
    fn new(folder: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]);
        command.current_dir(folder).stdout(std::process::Stdio::null());
        let process =
            crate::wsgi::End(command.stderr(std::process::Stdio::null()).spawn().unwrap());
        let address = format!("127.0.0.1:{port}");
        crate::until("the server listens", || std::net::TcpStream::connect(&address).is_ok());
        Self { process, address }
    }

    fn stop(mut self) {
        self.process.signal("KILL");
        let _ = self.process.0.wait();
    }
}

/// A repository `lib.git` below `www` of a node, with a project at its top and one in `sub`.
fn served(folder: &Path) -> (Server, String) {
    let (work, www) = (folder.join("git"), folder.join("www"));
    project(&work, "toplib", "top");
    project(&work.join("sub"), "sublib", "sub");
    let commit = repository(&work);
    fs::create_dir_all(&www).unwrap();
    let work = work.to_string_lossy().into_owned();
    git(&www, &["clone", "--quiet", "--bare", &work, "lib.git"]);
    git(&www.join("lib.git"), &["update-server-info"]);
    (Server::new(&www), commit)
}

#[test]
fn git_is_built_at_its_commit_in_all_spellings_and_installed_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let (server, commit) = served(folder.path());
    let address = format!("git+http://{}/lib.git", server.address);
    let list = format!(
        "-e {address}@v1#egg=toplib\nsublib[more] @ {address}@main#subdirectory=sub ; \
         python_version >= '3'\nnever @ {address}@nowhere ; python_version < '3'\n"
    );
    let sample = Sample::new(&list);
    assert!(sample.built());
    let exact = sample.exact();
    assert!(exact[0].starts_with("itsdangerous=="), "{exact:?}");
    assert_eq!(
        exact[1..],
        [
            format!("sublib[more] @ {address}@{commit}#subdirectory=sub ; python_version >= '3'"),
            format!("toplib @ {address}@{commit}"),
        ]
    );
    assert_eq!(sample.wheels().len(), 3);
    assert!(!sample.built(), "nothing has changed");
    // The list of exact versions is enough for another machine, which has no wheels.
    fs::remove_dir_all(sample.dir.join("python3_virtualenv_sources/src")).unwrap();
    assert!(sample.built() && sample.exact() == exact);
    server.stop();
    assert_eq!(sample.installed("toplib, sublib", "toplib.VALUE + sublib.VALUE"), "topsub");
}

#[test]
fn git_with_uv_is_the_same_and_what_does_not_exist_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (server, commit) = served(folder.path());
    let address = format!("git+http://{}/lib.git", server.address);
    let sample = Sample::new(&format!("toplib @ {address}\n")).with_uv();
    assert_eq!(sample.build().unwrap().python.unwrap().tool, "uv");
    assert_eq!(sample.exact(), [format!("toplib @ {address}@{commit}")]);
    let before = tree(&sample.dir);
    sample.write(LOOSE, &format!("toplib @ {address}@no-such-branch\n"));
    let error = sample.build().unwrap_err();
    assert!(
        error.what.contains("lib.git") && error.to_string().contains("no-such-branch"),
        "{error}"
    );
    sample.write(LOOSE, &format!("other @ {address}@v1\n"));
    let error = sample.build().unwrap_err();
    assert!(error.because[0].contains("is the package toplib"), "{error}");
    assert_eq!(tree(&sample.dir), before);
    server.stop();
}

#[test]
fn a_repository_inside_the_plugin_may_be_required_and_one_outside_may_not() {
    let sample = Sample::new("");
    let vendored = sample.dir.join("vendor/toplib");
    project(&vendored, "toplib", "vendored");
    repository(&vendored);
    sample.write(LOOSE, "toplib @ git+file://${PWD}/vendor/toplib@v1\n");
    assert!(sample.built());
    assert!(sample.exact()[0].starts_with("toplib @ git+file://${PWD}/vendor/toplib@"));
    assert_eq!(import(&sample.dir, "toplib", "toplib.VALUE"), "vendored");
    let outside = sample.node.work().join("outside");
    project(&outside, "toplib", "outside");
    repository(&outside);
    for address in [
        format!("git+file://{}", outside.display()),
        "git+file://${PWD}/../outside".to_string(),
        "git+ext::sh -c touch% mine".to_string(),
        "git+http://example.org/x.git".to_string(),
    ] {
        sample.write(LOOSE, &format!("# first\ntoplib @ {address}\n"));
        let error = sample.build().unwrap_err();
        assert_eq!(error.kind, Kind::BadConfiguration, "{error}");
        assert!(error.at.unwrap().to_string().ends_with("requirements-to-freeze.txt:2"));
    }
}

#[test]
fn a_submodule_that_leads_to_the_disk_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (work, www) = (folder.path().join("git"), folder.path().join("www"));
    let secret = folder.path().join("secret");
    write(&secret, "key", "x");
    repository(&secret);
    project(&work, "toplib", "top");
    git(folder.path(), &["init", "--quiet", &work.to_string_lossy()]);
    git(&work, &["submodule", "--quiet", "add", &secret.to_string_lossy(), "sub"]);
    committed(&work);
    fs::create_dir(&www).unwrap();
    git(&www, &["clone", "--quiet", "--bare", &work.to_string_lossy(), "lib.git"]);
    git(&www.join("lib.git"), &["update-server-info"]);
    let server = Server::new(&www);
    let sample = Sample::new(&format!("toplib @ git+http://{}/lib.git\n", server.address));
    let error = sample.build().unwrap_err();
    assert!(error.to_string().contains("not allowed"), "{error}");
    server.stop();
}
