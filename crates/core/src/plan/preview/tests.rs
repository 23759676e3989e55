use super::*;
use crate::plan::tests::{inputs, module, plugin};
use crate::plan::{Inputs, Listen};

const WEB: &str = "[app_main]\n_cmd_and_args=serve {unix_socket_path}\nnumprocesses=8\n";

fn plan(text: &str, plugins: &[(&str, &str)]) -> Plan {
    let plugins = plugins.iter().map(|(name, text)| plugin(name, text)).collect();
    Plan::new(Inputs { generation: 7, ..inputs(&module(text), plugins) })
}

fn main_of(plugin: &str) -> WatcherName {
    WatcherName::app(plugin, "main")
}

#[test]
fn the_same_plan_changes_nothing_and_the_first_one_everything() {
    let plan = plan("", &[("a", WEB)]);
    let same = PlanPreview::between(Some(&plan), &plan, &Measured::new());
    assert!(same.changes_nothing(), "{same:?}");
    let first = PlanPreview::between(None, &plan, &Measured::new());
    assert!(!first.changes_nothing());
    assert!(first.workers.iter().all(|one| one.action == Workers::Start && one.was == 0));
    assert_eq!(first.listen, [plan.listeners[0].address.clone()]);
    assert!(first.routes.iter().all(|route| route.action == Action::Add));
    assert_eq!(first.memory.unknown_workers, 9, "eight of the app, and the front");
}

#[test]
fn each_watcher_says_what_becomes_of_its_workers_and_why() {
    let gone = ("gone", WEB);
    let old = plan("", &[("a", WEB), ("b", WEB), ("c", WEB), ("d", WEB), gone]);
    let other = WEB.replace("serve", "other");
    let more = WEB.replace("=8", "=9");
    let slower = format!("{WEB}timeout=99\n");
    let now = [("a", &*other), ("b", &*more), ("c", WEB), ("d", &*slower), ("new", WEB)];
    let preview = PlanPreview::between(Some(&old), &plan("", &now), &Measured::new());
    let of = |plugin: &str| preview.workers.iter().find(|one| one.watcher == main_of(plugin));
    let short = |plugin: &str| of(plugin).map(|one| (one.action, one.was, one.becomes));
    assert_eq!(short("a"), Some((Workers::Replace, 8, 8)));
    assert_eq!(of("a").unwrap().because, ["its command"]);
    assert_eq!(short("b"), Some((Workers::Rescale, 8, 9)));
    assert_eq!(short("c"), None);
    assert_eq!(short("d").map(|it| it.0), Some(Workers::Replace), "the drain takes longer");
    assert_eq!(short("gone"), Some((Workers::Stop, 8, 0)));
    assert_eq!(short("new"), Some((Workers::Start, 0, 8)));
    assert_eq!(preview.upstreams, ["d/main"]);
    let names: Vec<_> = preview.plugins.iter().map(|it| (&*it.name, it.action)).collect();
    assert_eq!(names, [("gone", Action::Remove), ("new", Action::Add)]);
}

#[test]
fn variables_are_named_and_their_values_left_out() {
    let names = ["A", "B", "C", "D", "E", "F", "G"];
    let secret = |value: &str| -> BTreeMap<String, String> {
        names.iter().map(|name| (name.to_string(), value.to_string())).collect()
    };
    let said = variables(&secret("old"), &secret("hunter2"));
    assert_eq!(said, "its environment (A, B, C, D, E and 2 more)");
}

#[test]
fn routes_that_lead_elsewhere_and_another_address_are_said() {
    let old = plan("", &[("a", WEB)]);
    let off = WEB.replace("=8", "=0");
    let mut new = plan("[nginx]\ntimeout=5\nserver_tokens=0\n", &[("a", &off)]);
    new.listeners = vec![Listen { name: "http:x:1".into(), address: "x:1".into() }];
    let preview = PlanPreview::between(Some(&old), &new, &Measured::new());
    let gone = preview.routes.iter().find(|route| route.prefix == "/a").unwrap();
    assert_eq!((gone.action, gone.was.as_deref()), (Action::Remove, Some("workers of a/main")));
    assert_eq!((preview.listen.len(), preview.close.len()), (1, 1), "{preview:?}");
    assert_eq!(preview.settings, ["server_tokens"]);
}

#[test]
fn the_memory_of_more_workers_is_that_of_the_present_ones_and_a_quarter_lives_twice() {
    let old = plan("", &[("a", WEB), ("b", WEB)]);
    let now = [("a", WEB.replace("serve", "other")), ("b", WEB.replace("=8", "=12"))];
    let new = plan("", &now.each_ref().map(|(name, text)| (*name, &**text)));
    let measured = Measured::from([(main_of("a"), vec![100; 8]), (main_of("b"), vec![10, 30])]);
    let memory = PlanPreview::between(Some(&old), &new, &measured).memory;
    assert_eq!((memory.now_bytes, memory.then_bytes), (840, 800 + 240));
    assert_eq!(memory.meanwhile_bytes, 1040 + 2 * 100);
    assert_eq!(memory.unknown_workers, 1, "the front was not measured");
}
