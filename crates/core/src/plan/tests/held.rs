//! Counts and options that are held beside the configuration.

use super::*;

#[test]
fn a_held_count_ends_with_the_configuration_of_its_app_and_with_no_other() {
    let module = module("");
    let main = WatcherName::app("a", "main");
    let before = Plan::new(inputs(&module, vec![plugin("a", WEB)]));
    let of = Some(before.counts[&main].of);
    let installed_anew = PluginInput { dir: "/rt/var/releases/a/2".into(), ..plugin("a", WEB) };
    let other_count = WEB.replace("numprocesses=2", "numprocesses=3");
    for (text, input, wanted) in [
        ("the same", plugin("a", WEB), 5),
        ("another app", plugin("a", &format!("{WEB}[extra_daemon_b]\n_cmd_and_args=b\n")), 5),
        ("another key", plugin("a", &format!("{WEB}max_age=7\n")), 2),
        ("another count", plugin("a", &other_count), 3),
        ("another release", installed_anew, 2),
    ] {
        let new = Plan::new(Inputs { held: held(5, of), ..inputs(&module, vec![input]) });
        let count = &new.counts[&main];
        assert_eq!((count.wanted, count.held), (wanted, wanted == 5), "{text}");
        assert_eq!(new.watchers[&main].count, wanted, "{text}");
    }
}

#[test]
fn held_options_are_in_force_beside_the_count_and_end_with_the_configuration() {
    let module = module("");
    let main = WatcherName::app("a", "main");
    let before = Plan::new(inputs(&module, vec![plugin("a", WEB)]));
    let was = &before.watchers[&main];
    let all_ms = was.drain_timeout_ms + was.stop_timeout_ms;
    let with = |options: HeldOptions| {
        let held = Held { options, of: Some(before.counts[&main].of), ..Held::default() };
        let held = BTreeMap::from([(main.clone(), held)]);
        Plan::new(Inputs { held, ..inputs(&module, vec![plugin("a", WEB)]) })
    };
    let aged = with(HeldOptions { max_age_s: Some(7), ..HeldOptions::default() });
    assert_eq!((aged.watchers[&main].max_age_s, aged.watchers[&main].count), (7, 2));
    assert!(aged.counts[&main].differs() && !aged.counts[&main].is_scaled());
    let kept = aged.counts[&main].to_hold().unwrap();
    assert_eq!((kept.count, kept.options.max_age_s), (None, Some(7)));
    assert_eq!(Changes::between(Some(&before), &aged).replace, std::slice::from_ref(&main));
    for ms in [0, 1, 500, 5_000, was.drain_timeout_ms, all_ms, 2 * all_ms] {
        let options = HeldOptions { graceful_timeout_ms: Some(ms), ..HeldOptions::default() };
        let spec = &with(options).watchers[&main];
        assert_eq!(spec.drain_timeout_ms + spec.stop_timeout_ms, ms.max(1), "all of {ms}");
        assert!(spec.stop_timeout_ms >= ms.clamp(1, 1000), "{ms} leaves time to end");
        assert!(spec.drain_timeout_ms <= was.drain_timeout_ms);
    }
    let changed = plugin("a", &WEB.replace("numprocesses=2", "numprocesses=3"));
    let held = BTreeMap::from([(main.clone(), kept)]);
    let after = Plan::new(Inputs { held, ..inputs(&module, vec![changed]) });
    assert_eq!(after.watchers[&main].max_age_s, was.max_age_s);
    assert_eq!(after.counts[&main].to_hold(), None);
}

#[test]
fn what_an_earlier_version_held_is_read() {
    let old: Held = serde_json::from_str(r#"{"count":3,"of":5}"#).unwrap();
    assert_eq!(old, Held { count: Some(3), of: Some(5), ..Held::default() });
}

#[test]
fn a_stopped_app_stays_stopped_whatever_its_configuration_becomes() {
    let module = module("");
    let main = WatcherName::app("a", "main");
    let before = Plan::new(inputs(&module, vec![plugin("a", WEB)]));
    let options = HeldOptions { max_age_s: Some(7), ..HeldOptions::default() };
    let held =
        Held { count: Some(0), options, of: Some(before.counts[&main].of), ..Held::default() };
    let other = plugin("a", &WEB.replace("numprocesses=2", "numprocesses=3"));
    let held = BTreeMap::from([(main.clone(), held)]);
    let after = Plan::new(Inputs { held, ..inputs(&module, vec![other]) });
    let count = &after.counts[&main];
    assert_eq!((count.wanted, count.configured, count.is_stopped()), (0, 3, true));
    assert_eq!(count.options, HeldOptions::default(), "options end with the configuration");
    assert_eq!(count.to_hold().unwrap().of, Some(count.of), "it is held on");
}
