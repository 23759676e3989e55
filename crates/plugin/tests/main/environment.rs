//! What the programs of a plugin find around them.

use std::collections::BTreeMap;
use std::fs;

use mfserv_plugin::environment::{Placed, environment};
use mfserv_plugin::label::plugin_dependencies;

use crate::{Node, spec_of};

fn entries<'a>(variables: &'a BTreeMap<String, String>, name: &str) -> Vec<&'a str> {
    variables.get(name).map(|list| list.split(':').collect()).unwrap_or_default()
}

#[test]
fn a_plugin_inherits_from_the_plugins_it_depends_on_and_its_own_come_first() {
    let node = Node::new();
    let (own, other) =
        (node.plugin("python3_raw_wsgi", "own"), node.plugin("python3_raw_wsgi", "other"));
    for dir in [&own, &other] {
        for sub in [
            "bin",
            "local/bin",
            "local/lib/python3.11/site-packages",
            "node_modules/.bin",
            "lib/pkgconfig",
        ] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        fs::write(dir.join("lib/own.py"), "").unwrap();
        fs::write(dir.join("lib/libx.so.1"), "").unwrap();
    }
    fs::write(other.join(".layerapi2_extra_env"), "WHO=other\nOTHER=1\n").unwrap();
    fs::write(own.join(".layerapi2_extra_env"), "WHO=own\n").unwrap();
    let custom = |value: &str| format!("\nwho={value}\n_private=1\ndb_hostname=localhost\n");
    for (dir, value) in [(&own, "own"), (&other, "other")] {
        let config = fs::read_to_string(dir.join("config.ini")).unwrap();
        fs::write(dir.join("config.ini"), config + &custom(value)).unwrap();
    }
    let config = fs::read_to_string(other.join("config.ini")).unwrap();
    fs::write(other.join("config.ini"), config + "only_other=1\n").unwrap();
    fs::write(
        own.join(".layerapi2_dependencies"),
        "# mine\nroot@mfserv\nplugin_other@mfserv\n-plugin_maybe@mfserv\n",
    )
    .unwrap();
    assert_eq!(
        plugin_dependencies(&own),
        [("other".to_string(), false), ("maybe".to_string(), true)]
    );

    let (own_spec, other_spec) = (spec_of(&own), spec_of(&other));
    let other_placed = Placed { dir: &other, spec: &other_spec };
    let module = BTreeMap::from([("MFSERV_NGINX_PORT".to_string(), "18868".to_string())]);
    let variables = environment(
        &node.home,
        Placed { dir: &own, spec: &own_spec },
        &[other_placed],
        None,
        &module,
    )
    .unwrap();

    let of = |dir: &std::path::Path, subs: &[&str]| -> Vec<String> {
        subs.iter()
            .map(|sub| dir.join(sub).to_str().unwrap().trim_end_matches('/').to_string())
            .collect()
    };
    let both = |subs: &[&str]| [of(&own, subs), of(&other, subs)].concat();
    assert_eq!(entries(&variables, "PATH")[..6], both(&["local/bin", "bin", "node_modules/.bin"]));
    assert_eq!(
        entries(&variables, "PYTHONPATH"),
        both(&["local/lib/python3.11/site-packages", "lib", ""])
    );
    assert_eq!(entries(&variables, "NODE_PATH"), both(&["node_modules"]));
    assert_eq!(entries(&variables, "LD_LIBRARY_PATH"), both(&["lib"]));
    assert_eq!(entries(&variables, "PKG_CONFIG_PATH"), both(&["lib/pkgconfig"]));
    for (name, value) in [
        ("WHO", "own"),
        ("OTHER", "1"),
        ("MFSERV_CURRENT_PLUGIN_NAME", "own"),
        ("MFSERV_CURRENT_PLUGIN_CUSTOM_WHO", "own"),
        ("MFSERV_CURRENT_PLUGIN_CUSTOM_ONLY_OTHER", "1"),
        ("MFSERV_CURRENT_PLUGIN_CUSTOM_DB_HOSTNAME_IP", "127.0.0.1"),
        ("MFSERV_NGINX_PORT", "18868"),
    ] {
        assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!variables.keys().any(|name| name.contains("PRIVATE") || name.starts_with("CARGO")));
    assert!(node.home.tmp_of("own").is_dir() && node.home.plugin_data("own").is_dir());
}
