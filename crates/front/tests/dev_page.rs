//! What a developer sees whose newest code does not start, and who else sees nothing of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mfserv_core::node_state::NodeState;
use mfserv_core::route::Slots;
use mfserv_core::wire::front::{Breakage, ToFront};

use crate::endpoints::outer_address;
use crate::world::*;

/// The plugin of the table is broken, or is not.
fn publish_breakage(front: &mut Front, broken: bool) {
    let breakage = Breakage {
        what: "app.p.a does not start".into(),
        output: "Traceback\nNameError: <aap>\n".into(),
        at_ms: 12,
    };
    let broken = broken.then(|| ("p".to_string(), breakage));
    let broken: BTreeMap<String, Breakage> = broken.into_iter().collect();
    front.daemon.say(&ToFront::State {
        node: NodeState::Running,
        broken,
        backing_off: Default::default(),
    });
    front.daemon.stats();
}

fn ask_with(address: SocketAddr, line: &str, fields: &str) -> Answer {
    ask(address, format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n"))
}

const DOCUMENT: &str = "Sec-Fetch-Dest: document\r\nAccept: text/html,*/*;q=0.8\r\n";

#[test]
fn the_page_is_for_documents_that_a_browser_here_opens_and_every_other_answer_is_the_apps() {
    let world = World::listening_on("0.0.0.0:0");
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.front(1);
    front.daemon.publish(1, table(Slots::Unlimited, true), &[&worker]);
    let here = SocketAddr::from(([127, 0, 0, 1], world.address.port()));
    assert_eq!(ask_with(here, "GET /a", DOCUMENT).text(), "ok");

    publish_breakage(&mut front, true);
    let asked = worker.count();
    let page = ask_with(here, "GET /a/b?c", DOCUMENT);
    assert_eq!((page.status, page.field("x-mfserv-cause")), (500, vec!["broken_edit".to_string()]));
    assert_eq!(page.field("content-type"), ["text/html; charset=utf-8"]);
    assert!(page.text().contains("NameError: &lt;aap&gt;"), "{}", page.text());
    assert_eq!(page.field("x-request-id").len(), 1);
    assert_eq!(worker.count(), asked, "the app is not asked for it");
    let form = format!("{DOCUMENT}Content-Length: 3\r\n\r\na=b");
    let form = form.trim_end_matches("\r\n");
    for (line, fields) in [
        ("GET /a", ""),
        ("GET /a", "Sec-Fetch-Dest: script\r\n"),
        ("GET /a", "Sec-Fetch-Dest: document\r\nCookie: mfserv_dev_seen=12\r\n"),
        ("HEAD /a", DOCUMENT),
    ] {
        let answer = ask_with(here, line, fields);
        assert_eq!(
            (answer.status, answer.field("x-mfserv-dev").len()),
            (200, 1),
            "{line} {fields}"
        );
    }
    let posted = ask(here, format!("POST /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{form}"));
    assert_eq!(posted.text(), "ok");
    // For somebody else: by a proxy, by a page of another site, or from another machine.
    let proxied = format!("{DOCUMENT}X-Forwarded-For: 203.0.113.1\r\n");
    let framed = format!("{DOCUMENT}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: nested\r\n");
    let elsewhere = outer_address(here.port()).into_iter().map(|outer| (outer, DOCUMENT));
    let others = [(here, proxied.as_str()), (here, framed.as_str())];
    for (address, fields) in others.into_iter().chain(elsewhere) {
        let answer = ask_with(address, "GET /a", fields);
        assert_eq!((answer.text().as_str(), answer.field("x-mfserv-dev").len()), ("ok", 0));
    }

    publish_breakage(&mut front, false);
    let answer = ask_with(here, "GET /a", DOCUMENT);
    assert_eq!((answer.text().as_str(), answer.field("x-mfserv-dev").len()), ("ok", 0));
}

#[test]
fn without_a_worker_the_front_says_why_the_code_does_not_start() {
    let world = World::new();
    let mut table = table(Slots::Unlimited, true);
    table.upstreams.values_mut().for_each(|app| app.queue_timeout_ms = 50);
    let mut front = world.serving(table, &[]);
    publish_breakage(&mut front, true);
    let page = ask_with(front.address, "GET /a", DOCUMENT);
    assert_eq!((page.status, page.field("x-mfserv-cause")), (503, vec!["broken_edit".to_string()]));
    assert!(!page.text().contains("old code"), "{}", page.text());
    let answer = ask_with(front.address, "GET /a", "");
    assert!(answer.status >= 502, "{answer:?}");
    assert_eq!(answer.field("content-type"), ["text/plain; charset=utf-8"]);
    assert_eq!(answer.text(), "app.p.a does not start\nTraceback\nNameError: <aap>\n");
    // A name that a page has pointed at this machine shows nothing of it.
    let rebound = "GET /a HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(!ask(front.address, rebound).text().contains("NameError"));
    // What has nothing to do with the code is said as ever.
    assert_eq!(ask_with(front.address, "GET /b", DOCUMENT).status, 404);
    let refused = ask_with(front.address, "TRACE /a", "");
    assert_eq!((refused.status, refused.field("x-mfserv-cause")[0].as_str()), (405, "method"));
}

#[test]
fn the_state_of_a_plugin_is_told_as_a_page_and_as_json_and_only_of_good_names() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let told = |front: &Front| -> serde_json::Value {
        serde_json::from_slice(&front.get("/__dev/p").body).unwrap()
    };
    assert_eq!(told(&front)["broken"], serde_json::Value::Null);
    publish_breakage(&mut front, true);
    assert_eq!(told(&front)["broken"]["at_ms"], 12);
    let page = ask_with(front.address, "GET /__dev/p", DOCUMENT);
    assert!(page.status == 200 && page.text().contains("NameError"), "{page:?}");
    for bad in ["/__dev/", "/__dev/a'b", "/__dev/p/q", "/__dev/%3Cscript%3E"] {
        let answer = ask_with(front.address, &format!("GET {bad}"), DOCUMENT);
        assert_eq!(answer.status, 404, "{bad}");
        assert_eq!(answer.field("content-type"), ["text/plain; charset=utf-8"]);
    }
}
