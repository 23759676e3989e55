//! Packages of the site beside each other: none of them keeps another one from starting.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::event::Fact;
use mfserv_testkit::{Node, Plugin, programs, until};

use super::{installations, put};
use crate::compat::OldNames;
use crate::install::release;
use crate::{PATIENCE, Turn, node};

/// A package whose installation runs this script.
fn hooked(node: &Node, name: &str, script: &str) -> PathBuf {
    let hook = format!("#!/bin/sh\n{script}\n");
    let plugin = Plugin::python(name, programs::SERVES).file("postinstall", &hook);
    release(node, &plugin.write(&node.path("work")))
}

/// The first can be installed when the second was.
fn needing_and_bringing(node: &Node) -> [PathBuf; 2] {
    let flag = node.path("brought");
    let flag = flag.display();
    let needs = format!("test -e {flag} || {{ echo 'nothing was brought'; exit 1; }}");
    [hooked(node, "needs", &needs), hooked(node, "brings", &format!("touch {flag}"))]
}

fn site(node: &Node) -> PathBuf {
    let site = node.path("site/mfserv/plugins");
    fs::create_dir_all(&site).unwrap();
    site
}

/// The operations of these packages that have ended well.
fn installed(node: &Node, name: &str) -> usize {
    let is_it = |fact: &Fact| matches!(fact, Fact::OperationEnded { what, ok: true, .. } if what.ends_with(name));
    node.events().iter().filter(|event| is_it(&event.fact)).count()
}

/// Those that have ended, however.
fn ended(node: &Node, name: &str) -> usize {
    let is_it =
        |fact: &Fact| matches!(fact, Fact::OperationEnded { what, .. } if what.ends_with(name));
    node.events().iter().filter(|event| is_it(&event.fact)).count()
}

#[test]
fn a_package_that_never_becomes_ready_or_fails_keeps_no_other_one_from_starting() {
    let _turn = Turn::heavy();
    let node = node();
    node.set("autorestart.configuration", "1");
    let site = site(&node);
    let broken = Plugin::python("aaa", programs::NEVER_LISTENS).write(&node.path("work"));
    let broken = release(&node, &broken);
    let good = release(&node, &Plugin::python("good", programs::SERVES).write(&node.path("work")));
    let [needs, brings] = needing_and_bringing(&node);
    node.start();
    put(&node, &broken, &site.join("aaa.plugin"));
    until("its installation has begun", PATIENCE, || {
        !installations(&node, "aaa.plugin").is_empty()
    });
    put(&node, &needs, &site.join("bbb.plugin"));
    put(&node, &good, &site.join("good.plugin"));
    until("the good one serves", PATIENCE, || node.get("/good").status == 200);
    assert_eq!(ended(&node, "aaa.plugin"), 0, "the broken one is still waited for");

    // What failed is tried again when another one has been installed, and not all the time.
    let tried = || installations(&node, "bbb.plugin").len();
    let said = || node.mfserv(&["status"]).stderr;
    until("why is said", PATIENCE, || {
        let text = said();
        text.contains("bbb.plugin is not installed") && text.contains("when another package there")
    });
    until("it was tried after the good one", PATIENCE, || ended(&node, "bbb.plugin") >= 1);
    assert!(tried() <= 2, "{}", tried());
    put(&node, &brings, &site.join("ccc.plugin"));
    until("it is installed when what it needs is there", PATIENCE, || {
        node.get("/needs").status == 200
    });
    until("that is said", PATIENCE, || !said().contains("bbb.plugin"));
    assert_eq!([installed(&node, "bbb.plugin"), installed(&node, "good.plugin")], [1, 1]);
    node.stop();
}

#[test]
fn a_package_of_the_site_that_needs_a_later_one_is_installed_at_the_same_start() {
    let _turn = Turn::heavy();
    let node = node();
    let old = OldNames::new(&node);
    let [needs, brings] = needing_and_bringing(&node);
    let place = |file: &Path, name: &str| {
        fs::copy(file, site(&node).join(name)).unwrap();
    };
    place(&needs, "a.plugin");
    fs::write(site(&node).join("b.plugin"), "this is no package").unwrap();
    place(&brings, "c.plugin");
    let ran = old.run(&["mfserv.start"]);
    assert_eq!(ran.stdout.matches("Installing external plugin: needs...").count(), 2, "{ran:?}");
    assert_eq!(ran.stdout.matches("Installing external plugin: brings...").count(), 1, "{ran:?}");
    assert_eq!(ran.stderr.matches("b.plugin").count(), 1, "said once: {ran:?}");
    for path in ["/needs", "/brings"] {
        until("both serve", PATIENCE, || node.get(path).status == 200);
    }
    node.stop();
}
