//! A node that listens on several addresses, of IPv4 and IPv6.

use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use mfserv_testkit::{Load, Plugin, get, programs, until};

use crate::{Turn, node};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn addresses_of_both_families_are_listened_on_and_kept_through_replacements() {
    let _turn = Turn::heavy();
    let node = node();
    node.set("front.host", "127.0.0.1,::1");
    node.add(&Plugin::python("own", programs::SERVES));
    node.start();
    let of_6 = SocketAddr::from((Ipv6Addr::LOCALHOST, node.address().port()));
    for address in [node.address(), of_6] {
        assert_eq!(get(address, "/own/x").unwrap().status, 200, "{address}");
    }
    let status = node.status();
    assert_eq!(status.address, Some(format!("http://{}", node.address())));
    let load = Load::new(of_6, "/own/x").connections(4).start();
    load.answers(50);
    node.mfserv(&["restart", "front"]).code(0);
    load.answers(50);
    node.mfserv(&["upgrade"]).code(0);
    load.answers(50);
    let report = load.stop();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    node.mfserv(&["check"]).code(0);
    node.set("front.host", "127.0.0.1");
    node.mfserv(&["reload"]).code(0);
    assert_eq!(node.get("/own/x").status, 200);
    // The front of before may be listening until it has ended.
    until("it is not listened on", PATIENCE, || TcpStream::connect(of_6).is_err());
    let said = node.mfserv(&["config", "set", "front.host", "127.0.0.1,example.org"]).code(4);
    assert!(said.stderr.contains("example.org is not an IP address"), "{said:?}");
    // One address that covers another: not at a reload, but at a start.
    node.set("front.host", "::");
    node.mfserv(&["reload"]).code(5);
    assert_eq!(node.get("/own/x").status, 200, "what was in force is in force");
    node.stop();
    node.start();
    for address in [node.address(), of_6] {
        assert_eq!(get(address, "/own/x").unwrap().status, 200, "{address}");
    }
}
