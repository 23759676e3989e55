//! What is started once: the daemon, and processes that ask for it.

use mfserv_core::wire::keeper::{Answer, Ask, Ended, ProcessSpec};

use crate::node::{self, Asker, Node, until};
use crate::setup::Setup;

fn start(client: &mut Asker, spec: &ProcessSpec) -> Answer {
    client.client.ask(Ask::Spawn { spec: Box::new(spec.clone()) }).unwrap()
}

#[test]
fn a_process_that_is_to_be_started_once_is_refused_while_it_lives_and_until_its_end_is_forgotten() {
    let mut node = Node::start();
    let mut client = node.watching();
    let go = node.home().join("go");
    let script = format!("echo ran; while [ ! -e {} ]; do sleep 0.02; done", go.display());
    let spec = ProcessSpec { once: true, ..node.spec("job.p.a@1", &script) };
    assert!(matches!(start(&mut client, &spec), Answer::Spawned(_)));
    let refused = |answer: Answer, why: &str| match answer {
        Answer::Refused { reason, .. } => assert!(reason.contains(why), "{reason}"),
        other => panic!("it was started twice: {other:?}"),
    };
    refused(start(&mut client, &spec), "lives already");
    std::fs::write(&go, "").unwrap();
    assert_eq!(client.exit_of("job.p.a@1").ended, Ended::Exited { code: 0 });
    refused(start(&mut client, &spec), "was started already");
    // The keeper that comes after one that was killed knows it as well.
    node.kill();
    node.again();
    let mut client = node.watching();
    refused(start(&mut client, &spec), "was started already");
    assert_eq!(node.log("job.p.a@1"), "ran\n");
    client.done(Ask::Forget { id: "job.p.a@1".into() });
    assert!(matches!(start(&mut client, &spec), Answer::Spawned(_)));
}

#[test]
fn a_process_reads_its_input_to_the_end_and_is_as_nice_as_asked() {
    let node = Node::start();
    let mut client = node.watching();
    let text = format!("first\n\n{}\nlast", "x".repeat(60_000));
    let script = "wc -c; cut -d' ' -f19 /proc/self/stat";
    let spec = ProcessSpec { stdin: text.clone(), nice: 7, ..node.spec("a", script) };
    client.done_or_spawned(Ask::Spawn { spec: Box::new(spec) });
    let said = client.exit_of("a").last_output;
    let own = rustix::process::getpriority_process(None).unwrap();
    let expected = [text.len().to_string(), (own + 7).min(19).to_string()];
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), expected);
    let spec = ProcessSpec { stdin: "x".repeat(70_000), ..node.spec("b", "true") };
    let Answer::Refused { reason, .. } = start(&mut client, &spec) else { panic!("started") };
    assert!(reason.contains("65536 bytes"), "{reason}");
}

#[test]
fn a_daemon_is_adopted_and_never_doubled() {
    let mut node = Node::with(Setup { daemon: Some("exec sleep 1000"), ..Setup::default() });
    // Within execve(2) a process shows no environment for a moment.
    let mut before = Vec::new();
    until("a daemon", || {
        before = node.marked_processes();
        before.len() == 1
    });
    for _ in 0..3 {
        node.kill();
        node.again();
        // An ask comes after whatever the keeper does first.
        assert_eq!(node.client().list().0.len(), 1);
        until("the same daemon", || node.marked_processes() == before);
    }
    node.kill();
    node::kill(before[0]);
    node.again();
    until("another daemon", || {
        let now = node.marked_processes();
        now.len() == 1 && now != before
    });
    assert_eq!(node.client().list().1.last().unwrap().ended, Ended::Unknown);
}
