//! What is written to log files: by several processes, and lines without an end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_core::output::Rotation;
use mfserv_core::wire::keeper::Ask;
use mfserv_logfile::Index;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::node::{Node, until};

/// Who wrote each line of a log file, as its index says.
fn written_by(log: &Path) -> Vec<(String, String)> {
    let index = Index::read(log, Some(fs::metadata(log).unwrap().ino())).unwrap();
    let text = fs::read(log).unwrap();
    let mut offset = 0;
    let line = |line: &[u8]| {
        let source = index.chunk_at(offset).and_then(|chunk| chunk.source);
        let worker = source.map_or(String::new(), |source| index.sources[source].worker.clone());
        offset += line.len() as u64;
        (worker, String::from_utf8_lossy(line).into_owned())
    };
    text.split_inclusive(|byte| *byte == b'\n').map(line).collect()
}

#[test]
fn lines_that_eight_processes_write_in_pieces_never_mix_and_each_has_its_writer() {
    let node = Node::start();
    let mut client = node.watching();
    let log = node.home().join("log/all.log");
    for worker in 1..=8 {
        // The pauses make eight lines begin before one ends; one line is longer than a FIFO.
        let script = format!(
            "i=0; while [ $i -lt 20 ]; do printf 'w{worker} '; sleep 0.0{worker}; \
             printf 'line '; sleep 0.01; echo $i; i=$((i+1)); done; printf 'w{worker} '; \
             head -c 1500000 /dev/zero | tr '\\0' x; echo; printf 'w{worker} last'"
        );
        let mut spec = node.spec(&format!("w{worker}"), &script);
        spec.output.stdout = log.clone();
        spec.release = "7".into();
        client.done_or_spawned(Ask::Spawn { spec: Box::new(spec) });
    }
    (1..=8).for_each(|worker| drop(client.exit_of(&format!("w{worker}"))));
    until("all lines", || {
        let text = fs::read_to_string(&log).unwrap();
        let is_of_long = |byte: &u8| *byte == b'x';
        text.bytes().filter(is_of_long).count() == 8 * 1_500_000
            && text.matches(" last\n").count() == 8
    });
    let lines = written_by(&log);
    let mut long = BTreeMap::<&str, usize>::new();
    let mut whole = 0;
    for (worker, line) in &lines {
        let rest = line.strip_prefix(worker).unwrap_or(line);
        if rest.starts_with(" line ") && rest.len() < 10 || rest == " last\n" {
            whole += 1;
            continue;
        }
        // A line longer than a FIFO is ended where its writer pauses for too long.
        assert!(rest.trim().bytes().all(|byte| byte == b'x'), "{worker}: {line:.40}");
        *long.entry(worker.as_str()).or_default() += rest.trim().len();
    }
    assert_eq!(whole, 8 * 21);
    assert!(long.len() == 8 && long.values().all(|length| *length == 1_500_000), "{long:?}");
    let index = Index::read(&log, None).unwrap();
    assert!(index.sources.iter().all(|source| source.release == "7" && source.stream == "both"));
}

#[test]
fn a_long_line_of_a_process_with_a_small_fifo_is_written_without_waits() {
    let node = Node::start();
    let mut client = node.watching();
    let log = node.home().join("log/small.log");
    // F_SETPIPE_SZ: what a user gets who has many pipes.
    let program = "import fcntl, sys; fcntl.fcntl(1, 1031, 8192)\n\
                   for _ in range(300): sys.stdout.write('x' * 1000); sys.stdout.flush()\n\
                   print()";
    let mut spec = node.spec("w1", &format!("exec python3 -c \"{program}\""));
    spec.output.stdout = log.clone();
    let start = Instant::now();
    client.done_or_spawned(Ask::Spawn { spec: Box::new(spec) });
    client.exit_of("w1");
    until("the line", || fs::read(&log).is_ok_and(|text| text.len() == 300_001));
    // It was a second for each 8 KiB.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_keeper_that_is_killed_while_it_writes_leaves_an_index_that_gives_no_line_to_another() {
    let mut node = Node::start();
    let mut client = node.client();
    let log = node.home().join("log/all.log");
    for id in ["one", "two", "three"] {
        let script = format!("i=0; while [ ! -e stop ]; do echo {id} $i; i=$((i+1)); done");
        let mut spec = node.spec(id, &script);
        spec.output.stdout = log.clone();
        spec.output.rotation = Rotation { max_bytes: 300_000, max_age_s: 0, keep: 0, mode: None };
        client.done_or_spawned(Ask::Spawn { spec: Box::new(spec) });
    }
    let size = || fs::metadata(&log).map_or(0, |found| found.len());
    for _ in 0..6 {
        let before = mfserv_logfile::rotated(&log).unwrap().len();
        until("it writes", || size() > 0 && mfserv_logfile::rotated(&log).unwrap().len() > before);
        node.kill();
        node.again();
    }
    fs::write(node.home().join("stop"), "").unwrap();
    let mut client = node.client();
    until("all have ended", || client.list().0.is_empty());
    let mut files: Vec<_> =
        mfserv_logfile::rotated(&log).unwrap().into_iter().map(|file| file.path).collect();
    files.push(log);
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| fs::metadata(file).is_ok_and(|f| f.len() > 0)) {
        // What a kill has torn begins with a part of a word.
        wrong.extend(written_by(file).into_iter().filter(|(worker, line)| {
            let word = line.split(' ').next().unwrap_or_default().trim();
            !worker.starts_with(word)
        }));
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_log_rotates_and_lines_of_two_processes_stay_whole() {
    let node = Node::start();
    let mut client = node.watching();
    for id in ["one", "two"] {
        let script = format!(
            "i=0; while [ $i -lt 4000 ]; do printf 'from {id} '; echo $i; i=$((i+1)); done"
        );
        let mut spec = node.spec(id, &script);
        spec.output.stdout = node.home().join("log/both.log");
        spec.output.rotation = Rotation { max_bytes: 20_000, max_age_s: 0, keep: 0, mode: None };
        client.done_or_spawned(Ask::Spawn { spec: Box::new(spec) });
    }
    client.exit_of("one");
    client.exit_of("two");
    let files = || mfserv_logfile::rotated(&node.home().join("log/both.log")).unwrap();
    let text = || {
        let rotated = files().into_iter().map(|file| fs::read_to_string(file.path).unwrap());
        rotated.chain([node.log("both")]).collect::<String>()
    };
    until("all lines", || text().lines().count() == 8000);
    assert!(files().len() >= 5);
    for line in text().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(
            words.len() == 3 && words[0] == "from" && words[2].parse::<u32>().is_ok(),
            "{line}"
        );
    }
}

#[test]
fn a_prompt_in_a_shared_log_comes_at_once_when_the_others_are_quiet() {
    let node = Node::start();
    let mut client = node.client();
    let log = node.home().join("log/shared.log");
    let mut start = |id: &str, script: &str| {
        let mut spec = node.spec(id, script);
        spec.output.stdout = log.clone();
        client.done_or_spawned(Ask::Spawn { spec: Box::new(spec) });
    };
    let text = || node.log("shared");
    start(
        "quiet",
        "echo hello; while [ ! -e say ]; do sleep 0.02; done; echo more; exec sleep 100",
    );
    until("the other one has written", || text() == "hello\n");
    let began = Instant::now();
    start("asks", "printf 'name? '; while [ ! -e answer ]; do sleep 0.02; done; echo it is");
    until("the prompt", || text() == "hello\nname? ");
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    fs::write(node.home().join("say"), "").unwrap();
    until("the line of the other one", || text() == "hello\nname? \nmore\n");
    fs::write(node.home().join("answer"), "").unwrap();
    until("the rest of the line", || text() == "hello\nname? \nmore\nit is\n");
}

#[test]
fn a_disk_that_is_slow_but_writes_loses_no_line() {
    let node = Node::start();
    let mut client = node.client();
    let log = node.home().join("log/slow.log");
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    mknodat(CWD, &log, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // Each write(2) of 1 MiB takes longer than lines wait in their FIFO for the disk; all of it
    // is more than memory and FIFO hold.
    let lines = "i=0; while [ $i -lt 10 ]; do head -c 1000000 /dev/zero | tr '\\0' x | fold -w 99; \
                 echo; i=$((i+1)); done; exec sleep 100";
    client.done_or_spawned(Ask::Spawn { spec: Box::new(node.spec("slow", lines)) });
    let mut disk = fs::File::open(&log).unwrap();
    let _ = rustix::pipe::fcntl_setpipe_size(&disk, 256 * 1024);
    let (mut length, mut buffer) = (0, vec![0; 256 * 1024]);
    while length < 10 * (1_000_000 + 1_000_000 / 99 + 1) {
        // this is what makes the disk slow
        std::thread::sleep(Duration::from_millis(20));
        let count = disk.read(&mut buffer).unwrap();
        assert!(!String::from_utf8_lossy(&buffer[..count]).contains("dropped"));
        length += count;
    }
}

#[test]
fn a_line_without_an_end_is_written_after_a_while_and_at_the_end() {
    let node = Node::start();
    let mut client = node.watching();
    for (name, more) in [("a", " and ended"), ("c", "")] {
        let goes_on = format!("while [ ! -e {name} ]; do sleep 0.02; done; printf '{more}'");
        client.spawn(name, &format!("printf begun; {goes_on}"));
        until("the beginning", || node.log(name) == "begun");
        fs::write(node.home().join(name), "").unwrap();
        assert_eq!(client.exit_of(name).last_output, format!("begun{more}"));
        until("the end", || node.log(name) == format!("begun{more}\n"));
    }
    client.spawn("b", "head -c 200000 /dev/zero | tr '\\0' x; printf end");
    client.exit_of("b");
    until("a long line", || node.log("b").len() == 200_004);
}
