//! What Makefiles and crontabs of plugins call: `layer_wrapper`, `cronwrap.sh`, `opt/`, and rules of
//! their own.

use std::time::{Duration, Instant};

use mfserv_testkit::{Plugin, Ran, until};

use super::OldNames;
use crate::{PATIENCE, Turn, node};

#[test]
fn a_makefile_may_add_to_any_rule_and_run_programs_of_layers() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let dir = old.create("static", "foo");
    let makefile = dir.join("Makefile");
    let text = std::fs::read_to_string(&makefile).unwrap();
    let rules = "
clean superclean::
\trm -f made
all::
\t@echo all too >> order
check::
\t@echo check too >> order
custom::
\tlayer_wrapper --empty --layers=python3@mfext,-php@mfext -- python3 -c 'print(6*7)' > made
\t$(MFEXT_HOME)/opt/python3/bin/python3 -c 'print(6*8)' >> made
";
    std::fs::write(&makefile, text + rules).unwrap();
    old.run_in(&dir, &["make"]).code(0);
    assert_eq!(std::fs::read_to_string(dir.join("made")).unwrap(), "42\n48\n");
    assert_eq!(std::fs::read_to_string(dir.join("order")).unwrap(), "check too\nall too\n");
    old.run_in(&dir, &["make", "release"]).code(0);
    let package = dir.join("foo-0.0.1-1.metwork.mfserv.plugin");
    assert!(package.is_file());
    old.run_in(&dir, &["make", "clean"]).code(0);
    assert!(!dir.join("made").exists() && !package.exists(), "both rules are done");
    std::fs::write(dir.join("made"), "").unwrap();
    old.run_in(&dir, &["make", "superclean"]).code(0);
    assert!(!dir.join("made").exists());
}

#[test]
fn layer_wrapper_runs_with_what_is_there_and_not_without_what_is_needed() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let dir = node.add(&Plugin::new("hello"));
    let run = |words: &[&str]| old.run(&[&["layer_wrapper"], words].concat());
    let ran = run(&["--layers=php@mfext", "--", "touch", "made"]).code(1);
    assert!(ran.stderr.contains("the layer php@mfext is not there"), "{ran:?}");
    assert!(!old.work().join("made").exists());
    assert_eq!(run(&["--layers=-php@mfext", "--", "echo", "a  b"]).code(0).stdout, "a  b\n");
    run(&["--layers=root@mfserv", "--", "sh", "-c", "exit 7"]).code(7);
    let plugin = "plugin_hello@mfserv";
    let layers = format!("--layers={plugin}");
    let show = "echo $MFSERV_CURRENT_PLUGIN_NAME $X_LABEL $PWD $Y";
    let ran = run(&[
        &layers,
        "--cwd",
        "--extra-env-prefix=X",
        "--prepend-env=Y,z",
        "--",
        "sh",
        "-c",
        show,
    ]);
    let place = dir.canonicalize().unwrap();
    assert_eq!(ran.code(0).stdout, format!("hello {plugin} {} z\n", place.display()));
    let more = [("KEPT", "kept"), ("GONE", "gone")];
    let words = [
        "layer_wrapper",
        "--empty-env",
        "--empty-env-keeps=KEPT",
        "--",
        "sh",
        "-c",
        "echo $KEPT$GONE",
    ];
    assert_eq!(old.run_with(&old.work(), &words, &more).code(0).stdout, "kept\n");
    // A layer by its path, as scripts of MFSERV list them.
    let labels = "cat $MFSERV_HOME/opt/*/.layerapi2_label";
    let ran = old.run(&["sh", "-c", labels]).code(0);
    assert_eq!(ran.stdout, "nodejs@mfext\npython3@mfext\nroot@mfserv\n");
}

/// What MFSERV's test 0096 does: each layer below `opt` lists the libraries that it needs of the
/// system.
#[test]
fn the_layers_of_opt_need_no_library_of_the_system() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let lists = "#!/bin/sh\nfind -L . -type f | while read -r file; do\n    \
                 head -c4 \"$file\" | grep -q ELF && ldd \"$file\"\ndone\ntrue\n";
    let program = old.work().join("external_dependencies.sh");
    std::fs::write(&program, lists).unwrap();
    old.run(&["chmod", "+x", "external_dependencies.sh"]).code(0);
    let test = r#"
        export PATH="$PATH:$PWD"
        cd "$MFSERV_HOME/opt"
        for layer in *; do
            cd "$MFSERV_HOME/opt/$layer"
            layer_wrapper --empty --layers="$(cat .layerapi2_label)" -- external_dependencies.sh
            echo "$layer"
        done"#;
    let ran = old.run(&["sh", "-ec", test]).code(0);
    assert_eq!(ran.stdout, "nodejs\npython3\nroot\n", "{ran:?}");
}

fn cronwrap(old: &OldNames, words: &[&str]) -> Ran {
    old.run(&[&["cronwrap.sh"], words].concat())
}

#[test]
fn cronwrap_runs_a_text_or_words_in_the_environment_of_the_module_and_tells_how_they_ended() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    node.add(&Plugin::new("hello"));
    let run = |words: &[&str]| cronwrap(&old, words);
    assert_eq!(run(&["--", "echo a | tr a b; echo c"]).code(0).stdout, "b\nc\n");
    assert_eq!(run(&["--", "echo", "a", "|", "tr", "a", "b"]).code(0).stdout, "b\n");
    assert_eq!(run(&["--", "sh", "-c", "echo \"$1\"", "x", "a  'b"]).code(0).stdout, "a  'b\n");
    run(&["--", "sh", "-c", "exit 3"]).code(3);
    run(&["--", "exit 4"]).code(4);
    assert_eq!(
        run(&["--", "echo $MFMODULE $PWD"]).code(0).stdout.split(' ').next(),
        Some("MFSERV")
    );
    let in_plugin =
        ["plugin_wrapper", "hello", "--", "sh", "-c", "echo $MFSERV_CURRENT_PLUGIN_NAME"];
    assert_eq!(run(&[&["--lock", "--"], &in_plugin[..]].concat()).code(0).stdout, "hello\n");
    std::fs::write(old.work().join("env"), "X=loaded\n").unwrap();
    assert_eq!(run(&["-e", "-f", "./env", "--", "echo $X"]).code(0).stdout, "loaded\n");
    assert_eq!(run(&["--nice", "5", "--", "nice"]).code(0).stdout, "5\n");
    let low = run(&["--low", "--", "nice"]).code(0);
    assert_eq!(low.stdout, "19\n");
    run(&["--low", "--nice=3", "--", "true"]).code(2);
    run(&["--unknown", "--", "true"]).code(2);
    run(&[]).code(2);
}

#[test]
fn cronwrap_writes_a_log_and_kills_all_of_a_command_whose_time_is_over() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let run = |words: &[&str]| cronwrap(&old, words);
    let ran = run(&["--log-capture-to", "job.log", "--", "echo out; echo err >&2; exit 5"]).code(5);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    run(&["--log-capture-to=job.log", "--", "echo again"]).code(0);
    let log = std::fs::read_to_string(node.path("log/job.log")).unwrap();
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["again", "err", "out"]);
    assert_eq!(run(&["--log-capture-to", "NULL", "--", "echo lost"]).code(0).stdout, "");
    let refused = run(&["--log-capture-to", "../job.log", "--", "true"]);
    assert!(refused.stderr.contains("not the name of a log"), "{refused:?}");

    let begin = Instant::now();
    let pids = old.work().join("pids");
    let script = format!(
        "echo $$ >> {0}; setsid sh -c 'echo $$ >> {0}; sleep 1000' & sleep 1000",
        pids.display()
    );
    let ran = run(&["-t", "1", "--", &script]).code(12);
    assert!(ran.stderr.contains("timeout => kill -9 "), "{ran:?}");
    assert!(begin.elapsed() < Duration::from_secs(30));
    let all = std::fs::read_to_string(&pids).unwrap();
    assert_eq!(all.lines().count(), 2);
    let lives = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
    };
    until("nothing of the command lives", PATIENCE, || !all.lines().any(lives));
}

#[test]
fn cronwrap_runs_one_command_at_a_time_and_another_one_beside_it() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let started = old.work().join("started");
    let script =
        format!("echo x >> {}; while ! test -f stop; do sleep 0.05; done", started.display());
    let count = || std::fs::read_to_string(&started).unwrap_or_default().lines().count();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| cronwrap(&old, &["--lock", "--", &script]).code(0));
        until("the first runs", PATIENCE, || count() == 1);
        let ran = cronwrap(&old, &["-l", "-w", "0", "--", &script]).code(0);
        assert!(ran.stdout.starts_with("can't acquire lock for executing echo x"), "{ran:?}");
        let quiet = ["-l", "-w", "0", "-b", "nothing", "--", &script];
        let ran = cronwrap(&old, &quiet).code(0);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
        let other = ["--lock", "-b", "print_stderr", "--", "echo other"];
        assert_eq!(cronwrap(&old, &other).code(0).stdout, "other\n");
        assert_eq!(count(), 1);
        std::fs::write(old.work().join("stop"), "").unwrap();
        first.join().unwrap();
    });
    cronwrap(&old, &["--lock", "--", &script]).code(0);
    assert_eq!(count(), 2);
}
