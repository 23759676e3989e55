//! Jobs: each due run is started once, whoever is killed; nothing of one outlives its end.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_core::event::Fact;
use mfserv_core::job::{JobStatus, RunResult};
use mfserv_testkit::{Node, Plugin, Ran, Signal, kill, until};
use serde_json::Value;

use crate::compat::OldNames;
use crate::{PATIENCE, Turn, node};

fn job(plugin: Plugin, name: &str, command: &str) -> Plugin {
    let section = format!("job_{name}");
    plugin.key(&section, "schedule", "0 0 1 1 *").key(&section, "_cmd_and_args", command)
}

fn jobs(node: &Node) -> Vec<JobStatus> {
    serde_json::from_str(&node.mfserv(&["jobs", "--json"]).code(0).stdout).unwrap()
}

fn history(node: &Node, name: &str) -> Value {
    let said = node.mfserv(&["jobs", "history", name, "--json", "-n", "1000"]).code(0).stdout;
    serde_json::from_str(&said).unwrap()
}

fn lives(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

#[test]
fn a_job_runs_as_its_section_says_and_whoever_waits_gets_its_exit_code() {
    let _turn = Turn::cheap();
    let node = node();
    let script = "#!/bin/sh\necho in $(pwd) as $MFSERV_CURRENT_PLUGIN_NAME with $MFSERV_CURRENT_PLUGIN_CUSTOM_WORD\n\
                  cut -d' ' -f19 /proc/$$/stat\nulimit -n\n\
                  set -- $(grep 'core file' /proc/self/limits)\necho core $5\nexit 7\n";
    let plugin = job(Plugin::new("shop"), "sweep", "./sweep.sh").file("sweep.sh", script);
    let plugin = plugin.key("custom", "word", "eels").key("job_sweep", "rlimit_nofile", "99");
    let plugin = job(plugin, "strays", "/bin/sh -c 'setsid sleep 1000 & echo $!; exit 0'");
    let plugin =
        job(plugin, "slow", "/bin/sh -c 'trap : TERM; echo $$; while :; do sleep 0.1; done'");
    let plugin = plugin.key("job_slow", "timeout", "1").key("job_slow", "graceful_timeout", "1");
    let dir = node.add(&plugin);
    node.set("misc.core_size", "8");
    node.start();
    let ran = node.mfserv(&["jobs", "run", "shop.sweep", "--wait"]).code(7);
    let most = rustix::process::getrlimit(rustix::process::Resource::Core).maximum;
    let core = most.map_or(8192, |most| most.min(8192));
    // The niceness of whoever runs the tests is that of the node.
    let nice = std::fs::read_to_string("/proc/self/stat").unwrap();
    let nice = nice.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap();
    let expected = format!("in {} as shop with eels\n{nice}\n99\ncore {core}\n", dir.display());
    assert!(ran.stdout.starts_with(&expected), "{ran:?}");
    assert!(ran.stdout.contains("failed with code 7"), "{ran:?}");
    let log = std::fs::read_to_string(node.path("log/job_shop_sweep.log")).unwrap();
    assert!(log.contains("as shop with eels"), "{log}");
    let ran = node.mfserv(&["jobs", "run", "shop.strays", "--wait"]).code(0);
    let stray = ran.stdout.lines().next().unwrap().to_owned();
    assert!(!lives(&stray), "what a run leaves behind is killed: {stray}");
    let began = Instant::now();
    let ran = node.mfserv(&["jobs", "run", "shop.slow", "--wait"]).code(12);
    assert!(began.elapsed() >= Duration::from_secs(2), "SIGTERM first");
    assert!(!lives(ran.stdout.lines().next().unwrap()), "{ran:?}");
    node.mfserv(&["jobs", "run", "shop.swep"]).code(2);
    let listed = node.mfserv(&["jobs"]).code(0).stdout;
    for part in ["shop.sweep", "failed with code 7", "0 0 1 1 *", "01-01 00:00"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let typed = ["--", "mfserv", "jobs", "history", "shop.s"];
    let mut tab = node.command(&typed);
    tab.env("_MFSERV_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "3").env("_CLAP_IFS", "\n");
    let completed = Ran::of(tab).stdout;
    let completed: Vec<&str> = completed.lines().collect();
    assert_eq!(completed, ["shop.slow", "shop.strays", "shop.sweep"]);
    let shown = node.mfserv(&["jobs", "history", "shop.slow"]).code(0).stdout;
    assert!(shown.contains("killed: it took more than 1 s"), "{shown}");
    until("the runs are counted", PATIENCE, || {
        let text = node.mfserv(&["metrics"]).stdout;
        text.contains(r#"mfserv_job_runs_total{plugin="shop",job="sweep",result="failed"} 1"#)
            && text.contains(r#"mfserv_job_runs_total{plugin="shop",job="strays",result="ok"} 1"#)
            && text.contains(
                r#"mfserv_job_last_success_timestamp_seconds{plugin="shop",job="strays"}"#,
            )
    });
    node.stop();
}

#[test]
fn a_line_of_a_crontab_runs_at_its_minute_with_its_shell_and_input() {
    let _turn = Turn::cheap();
    let node = node();
    let crontab = "SHELL=/bin/bash\nHOME=/usr\n\
                   * * * * * [[ -n $BASH ]] && read x && echo got $x in $PWD for $MFSERV_CURRENT_PLUGIN_NAME%first 1\\%\n\
                   * * * * * {{MFSERV_HOME}}/bin/cronwrap.sh --lock --log-capture-to wrapped.log -- plugin_wrapper {{MFSERV_CURRENT_PLUGIN_NAME}} -- sh -c 'echo wrapped $MFSERV_CURRENT_PLUGIN_NAME'\n";
    let old = OldNames::new(&node);
    let dir = node.add(&Plugin::new("lines").file("crontab", crontab));
    old.run(&["mfserv.start"]).code(0);
    let shown = std::fs::read_to_string(node.path("tmp/config_auto/crontab")).unwrap();
    assert!(shown.contains("%first 1\\%"), "{shown}");
    // A minute that begins while nobody is there is made up for.
    node.kill(node.status().daemon.pid);
    let log = || std::fs::read_to_string(node.path("log/crontab_lines.log")).unwrap_or_default();
    let patience = Duration::from_secs(90);
    until("the minute comes", patience, || log().contains("got first 1% in /usr for lines"));
    let known = jobs(&node);
    assert_eq!(
        known.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(),
        ["lines.crontab:3", "lines.crontab:4"]
    );
    until("both have ended", PATIENCE, || jobs(&node).iter().all(|job| job.last.is_some()));
    let last = |job: &JobStatus| job.last.as_ref().and_then(|run| run.end.clone()).unwrap();
    for job in jobs(&node) {
        assert_eq!(last(&job).result, RunResult::Ok, "{job:#?}");
    }
    let wrapped = std::fs::read_to_string(node.path("log/wrapped.log")).unwrap();
    assert!(wrapped.contains("wrapped lines"), "{wrapped}");
    assert!(old.run(&["_make_crontab.py"]).code(0).stdout.contains("%first 1\\%\n"));
    let ran = old.run(&["deploycron_file", "x"]).code(1);
    assert!(ran.stderr.contains("`mfserv jobs` shows them"), "{ran:?}");
    // The line above moves the others down: their runs stay theirs.
    std::fs::write(dir.join("crontab"), format!("# moved\n{crontab}")).unwrap();
    node.mfserv(&["reload"]).code(0);
    let moved = jobs(&node);
    assert_eq!(moved[0].name, "lines.crontab:4");
    assert!(moved[0].last.is_some());
    node.stop();
}

/// Eight jobs: the history of each has room for all of its runs.
const MANY: usize = 8;
/// The runs of all of them together.
const RUNS: usize = 200;

/// Asks for one run of each job, beside each other, and kills the daemon meanwhile. Returns the runs
/// that were accepted, as `JOB ID`: an id is one among those of a job.
fn ask_and_kill(node: &Node, after: Duration) -> Vec<String> {
    let before = node.role_pid("daemon");
    let ask = |number: usize| {
        let job = format!("many.j{number}");
        let ran = node.mfserv(&["jobs", "run", &job, "--json"]);
        // One that was not accepted says why.
        let said: Value = serde_json::from_str(&ran.stdout).ok()?;
        Some(format!("{job} {}", said["id"].as_str()?))
    };
    let accepted = std::thread::scope(|scope| {
        let asking = (0..MANY).map(|number| scope.spawn(move || [ask(number), ask(number)]));
        let asking: Vec<_> = asking.collect();
        std::thread::sleep(after); // another moment each time
        node.kill(before);
        asking.into_iter().flat_map(|one| one.join().unwrap()).flatten().collect()
    });
    until("another daemon", PATIENCE, || {
        node.try_status().is_some_and(|status| status.daemon.pid != before)
    });
    accepted
}

#[test]
fn of_200_runs_none_is_lost_or_doubled_or_left_alive_when_the_daemon_is_killed_again_and_again() {
    let _turn = Turn::heavy();
    let node = node();
    let out = node.path("ran");
    let plugin = (0..MANY).fold(Plugin::new("many"), |plugin, number| {
        let says = format!("echo many.j{number} $MFSERV_WORKER >> {}", out.display());
        let command = format!("/bin/sh -c '{says}; sleep 0.3'");
        let plugin = job(plugin, &format!("j{number}"), &command);
        plugin.key(&format!("job_j{number}"), "_overlap", "1")
    });
    node.add(&plugin);
    node.start();
    let began = Instant::now();
    let ran = node.mfserv(&["jobs", "run", "many.j0", "--json"]).code(0);
    let took = began.elapsed();
    let first: Value = serde_json::from_str(&ran.stdout).unwrap();
    let first = format!("many.j0 {}", first["id"].as_str().unwrap());
    let (mut asked, mut kills) = (BTreeSet::from([first]), 0);
    while asked.len() < RUNS {
        // Sometimes while they are asked for, sometimes while they live or after they have ended,
        // also on a slow machine.
        asked.extend(ask_and_kill(&node, took * (2 + 2 * (kills % 8))));
        kills += 1;
        // On a busy machine more daemons die before they have accepted anything.
        assert!(kills < 100, "some are accepted each time: {}", asked.len());
    }
    until("all have ended", PATIENCE, || jobs(&node).iter().all(|job| job.running.is_empty()));
    println!("{} runs, the daemon killed {kills} times: {:?}", asked.len(), began.elapsed());
    let text = std::fs::read_to_string(&out).unwrap();
    let run_of = |line: &str| {
        let (job, worker) = line.split_once(' ').unwrap();
        format!("{job} {}", worker.split_once('@').unwrap().1)
    };
    let mut ran: Vec<String> = text.lines().map(run_of).collect();
    ran.sort_unstable();
    assert!(ran.windows(2).all(|two| two[0] != two[1]), "a run is doubled: {ran:?}");
    let lost: Vec<&String> = asked.iter().filter(|run| !ran.contains(run)).collect();
    assert!(lost.is_empty(), "{lost:?} of {} are lost", asked.len());
    // Each is accounted for, and nothing that has not run.
    let mut known = Vec::new();
    for number in 0..MANY {
        let name = format!("many.j{number}");
        let of_job = history(&node, &name);
        let runs = of_job["runs"].as_array().unwrap();
        assert!(runs.iter().all(|run| run["end"]["result"] == "ok"), "{of_job:#}");
        for run in runs {
            known.push(format!("{name} {}", run["id"].as_str().unwrap()));
        }
    }
    known.sort_unstable();
    assert_eq!(known, ran);
    let hash = node.hash();
    node.stop();
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn a_run_ends_with_its_plugin_and_with_its_node_and_what_was_missed_meanwhile_is_said() {
    let _turn = Turn::cheap();
    let node = node();
    let sleeps = "/bin/sh -c 'echo $$; exec sleep 1000'";
    let gone = job(Plugin::new("gone"), "j", sleeps).key("job_j", "drain_timeout", "1");
    let file = crate::install::release(&node, &gone.write(&node.path("work")));
    crate::install::install(&node, &file);
    let stays = job(Plugin::new("stays"), "j", sleeps);
    let stays =
        job(stays, "often", "/bin/echo caught up").key("job_often", "schedule", "* * * * *");
    node.add(&stays.key("job_often", "_catch_up", "1"));
    node.start();
    let pid = |name: &str| {
        let found = jobs(&node).into_iter().find(|job| job.name == name);
        found.and_then(|job| job.running.first()?.pid).map(|pid| pid.to_string())
    };
    for name in ["gone.j", "stays.j"] {
        node.mfserv(&["jobs", "run", name]).code(0);
        until("it runs", PATIENCE, || pid(name).is_some());
    }
    let (first, second) = (pid("gone.j").unwrap(), pid("stays.j").unwrap());
    node.mfserv(&["uninstall", "gone"]).code(0);
    assert!(!lives(&first) && lives(&second));
    assert!(node.events().iter().any(|event| matches!(&event.fact,
        Fact::JobEnded { job, result: RunResult::Stopped { .. }, .. } if job == "gone.j")));
    node.stop();
    assert!(!lives(&second));
    // As if the node had been down for a day.
    let clock = node.path("var/jobs/clock.json");
    let mut saved: Value = serde_json::from_slice(&std::fs::read(&clock).unwrap()).unwrap();
    for (key, per_minute) in [("virtual_minute", 1), ("woken_minute", 1), ("woken_at", 60)] {
        saved[key] = (saved[key].as_i64().unwrap() - 24 * 60 * per_minute).into();
    }
    std::fs::write(&clock, saved.to_string()).unwrap();
    let record = node.path("var/jobs/stays.often.json");
    let mut saved: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    saved["from_ms"] = 0.into();
    std::fs::write(&record, saved.to_string()).unwrap();
    node.start();
    until("it is made up for", PATIENCE, || {
        history(&node, "stays.often")["runs"]
            .as_array()
            .unwrap()
            .iter()
            .any(|run| run["end"]["result"] == "ok")
    });
    let known = history(&node, "stays.often");
    let missed =
        known["runs"].as_array().unwrap().iter().find(|run| run["end"]["result"] == "missed");
    let times = missed.unwrap()["end"]["times"].as_u64().unwrap();
    assert!((1435..=1441).contains(&times), "{known:#}");
    node.mfserv(&["jobs", "run", "stays.j"]).code(0);
    until("it runs", PATIENCE, || pid("stays.j").is_some());
    kill(node.role_pid("daemon"), Signal::KILL);
    let hash = node.hash();
    node.stop();
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn lines_that_mfserv_has_left_in_the_crontab_of_the_user_are_not_run_twice() {
    let _turn = Turn::cheap();
    let node = node();
    let left = |name: &str| format!("##### {name} OF METWORK MFSERV PLUGIN old CRONTAB #####\n");
    let text = left("BEGINNING") + "* * * * * x\n" + &left("END");
    let module = text.replace("PLUGIN old", "MODULE");
    let bin = node.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(node.path("user-crontab"), text + &module).unwrap();
    let script = format!("#!/bin/sh\ncat {}\n", node.path("user-crontab").display());
    let program = bin.join("crontab");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    node.add(&Plugin::new("old").file("crontab", "* * * * * x\n"));
    node.add(&job(Plugin::new("new"), "j", "true").file("crontab", "* * * * * x\n"));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = |args: &[&str]| {
        let mut command = node.command(args);
        command.env("PATH", &path);
        Ran::of(command)
    };
    let told = run(&["check"]).code(0).stderr;
    for part in [
        "the crontab of plugin old is left to cron",
        "crontab -e",
        "cron still runs the jobs of MFSERV",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    run(&["start"]).code(0);
    let names = || jobs(&node).into_iter().map(|job| job.name).collect::<Vec<_>>();
    assert_eq!(names(), ["new.crontab:1", "new.j"]);
    let problems = node.status().problems;
    assert!(problems.iter().any(|problem| problem.what.contains("left to cron")), "{problems:?}");
    std::fs::write(node.path("user-crontab"), "").unwrap();
    run(&["reload"]).code(0);
    assert_eq!(names(), ["new.crontab:1", "new.j", "old.crontab:1"]);
    node.stop();
}
