//! What decides where an app answers, and with which paths.

use super::*;
use crate::route::Affinity;

#[test]
fn a_prefix_is_stripped_when_that_is_asked_for_and_never_one_that_a_pattern_matches() {
    let app = |text: &str| accepted(&format!("[app_main]\n{text}")).apps.remove(0);
    assert!(!app("").strip_prefix && !app("_strip_prefix=0\n").strip_prefix);
    let extra = "prefix_based_routing_extra_routes=/a.b;/c\n";
    assert!(app(&format!("_strip_prefix=1\n{extra}")).strip_prefix);
    let pattern = "prefix_based_routing_extra_routes=/a;/v[0-9]+\n";
    assert!(!app(pattern).strip_prefix);
    let both = format!("[app_main]\n_strip_prefix=1\n{pattern}");
    refused(&both, 10, &["_strip_prefix=1", "/v[0-9]+, a regular expression"]);
    refused("[app_main]\n_strip_prefix=maybe\n", 9, &["_strip_prefix"]);
}

#[test]
fn directories_of_files_that_the_front_sends_are_named_with_or_without_a_path() {
    for (wrong, part) in [("../x", "leads upwards"), ("a=b", "not a path"), ("/", "no directory")] {
        let text = format!("[app_main]\n_sendfile_roots=private,{wrong}\n");
        refused(&text, 9, &["_sendfile_roots", part]);
    }
    let spec = accepted("[app_main]\n_sendfile_roots=/p/ = private, /data,\n");
    let [named, other] = &spec.apps[0].sendfile_roots[..] else { panic!("{spec:?}") };
    assert_eq!((named.path.as_deref(), named.dir.to_str()), (Some("/p"), Some("private")));
    assert_eq!((other.path.as_deref(), other.dir.to_str()), (None, Some("/data")));
}

#[test]
fn clients_come_back_by_a_cookie_or_by_their_address() {
    refused("[app_main]\n_affinity=session\n", 9, &["_affinity", "not possible here"]);
    refused("[app_main]\n_affinity=cookie:a b\n", 9, &["_affinity", "no name of a cookie"]);
    let cookie = |name: &str| Some(Affinity::Cookie { name: name.into() });
    for (text, expected) in [
        ("cookie", cookie("mfserv_worker")),
        ("cookie:own", cookie("own")),
        ("ip", Some(Affinity::Ip)),
        ("null", None),
    ] {
        let spec = accepted(&format!("[app_main]\n_affinity={text}\n"));
        assert_eq!(spec.apps[0].affinity, expected, "{text}");
    }
}

#[test]
fn hosts_of_an_app_are_names_and_wildcards() {
    refused("[app_main]\n_hosts=a.org, b.org:80\n", 9, &["_hosts", "more than a host name"]);
    let spec = accepted("[app_main]\n_hosts=A.org, *.b.org,\n");
    assert_eq!(spec.apps[0].hosts, ["a.org", "*.b.org"]);
}
