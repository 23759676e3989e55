//! Files that the front sends for an app: from the configuration to what the front is told.

use super::*;
use crate::route::Fragment;

#[test]
fn the_front_is_told_which_files_an_app_may_have_sent() {
    let text = format!("{WEB}_sendfile_roots=/protected=private, /data/films\n");
    let given = plugin("foo", &text);
    let home = given.dir.clone();
    let plan = plan(vec![given]);
    let sendfile = plan.table.upstreams["foo/main"].sendfile.clone().unwrap();
    let dirs: Vec<PathBuf> = sendfile.dirs(&home).collect();
    assert_eq!(dirs, [home.join("private"), "/data/films".into()]);
    let paths: Vec<_> = sendfile.roots.iter().map(|root| root.path.as_deref()).collect();
    assert_eq!(paths, [Some("/protected"), None]);
}

#[test]
fn without_the_key_an_app_names_no_file() {
    let plan = plan(vec![plugin("foo", WEB)]);
    let spec = &plan.table.upstreams["foo/main"];
    assert!(spec.sendfile.is_none() && !spec.accel_by_nginx);
}

#[test]
fn nginx_is_obeyed_where_a_plugin_brings_locations_along() {
    let mut given = plugin("foo", WEB);
    let server = Some(Fragment { file: "server.conf".into(), text: String::new() });
    given.loaded.as_mut().unwrap().fragments.server = server;
    assert!(plan(vec![given]).table.upstreams["foo/main"].accel_by_nginx);
}
