//! Jobs in a played world: a day takes no time.

use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::job::{Run, RunResult, Trigger};
use mfserv_core::wire::keeper::{Ended, ProcessSpec};
use mfserv_platform::clock::Clock;

use super::kit::{Daemon, House};

const MINUTE: Duration = Duration::from_secs(60);

async fn pass(time: Duration) {
    // Paused time: the minutes of the jobs.
    tokio::time::sleep(time).await;
}

fn runs(house: &House) -> Vec<ProcessSpec> {
    house.keeper.books().runs.clone()
}

/// Ends every run that lives.
fn end_all(house: &House, ended: &Ended) {
    let mut books = house.keeper.books();
    let alive: Vec<String> =
        books.alive.keys().filter(|id| id.starts_with("job.")).cloned().collect();
    alive.iter().for_each(|id| books.ends(id, ended.clone()));
}

fn alive(house: &House) -> usize {
    house.keeper.books().alive.keys().filter(|id| id.starts_with("job.")).count()
}

async fn history(daemon: &Daemon, name: &str) -> Vec<Run> {
    daemon.node.parts.jobs.history(name).await.unwrap().runs
}

async fn results(daemon: &Daemon, name: &str) -> Vec<RunResult> {
    let ended = history(daemon, name).await.into_iter().filter_map(|run| run.end);
    ended.map(|end| end.result).collect()
}

/// The daemon has handled what was sent to it.
async fn settled(daemon: &Daemon) {
    // Paused time: messages are handled meanwhile.
    pass(Duration::from_millis(20)).await;
    daemon.node.parts.jobs.list().await;
}

#[tokio::test(start_paused = true)]
async fn a_line_runs_each_minute_with_the_environment_of_its_plugin_and_its_own() {
    let house = House::new();
    let crontab = "# none\nSHELL=/bin/bash\nX=y\n\n\
                   * * * * * echo {{MFSERV_CURRENT_PLUGIN_NAME}} 5\\%%first%second\n0 0 30 2 * x\n61 * * * * bad\n";
    house.jobs("hello", crontab, "");
    let daemon = house.running().await;
    assert!(runs(&house).is_empty(), "the minute of the start is not due");
    pass(MINUTE).await;
    settled(&daemon).await;
    let started = runs(&house);
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].argv, ["/bin/bash", "-c", "echo hello 5%"]);
    assert_eq!(started[0].stdin, "first\nsecond\n");
    assert_eq!(started[0].env["X"], "y");
    assert_eq!(started[0].env["MFSERV_CURRENT_PLUGIN_NAME"], "hello");
    assert!(started[0].output.stdout.ends_with("log/crontab_hello.log"));
    end_all(&house, &Ended::Exited { code: 3 });
    settled(&daemon).await;
    let history = history(&daemon, "hello.crontab:5").await;
    let end = history[0].end.as_ref().unwrap();
    assert_eq!(
        (&end.result, end.output.as_str()),
        (&RunResult::Failed { code: 3 }, "the last line")
    );
    assert!(house.keeper.books().exits.is_empty(), "what is written down is forgotten");
    pass(MINUTE * 4).await;
    settled(&daemon).await;
    assert_eq!(runs(&house).len(), 5);
    let problems = daemon.status().await.problems;
    let of_line =
        |line: u32| problems.iter().any(|p| p.at.as_ref().is_some_and(|at| at.line == line));
    assert!(of_line(6) && of_line(7), "{problems:#?}");
    let shown = house.places().shown_crontab();
    let shown = super::kit::text(&house.disk, &shown).unwrap();
    assert!(shown.contains("* * * * * echo hello 5\\%%first%second\n"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn lines_overlap_up_to_a_bound_and_sections_only_if_they_say_so() {
    let house = House::new();
    let sections = "[job_one]\nschedule = * * * * *\n_cmd_and_args = a 'b c' {plugin_name}\n\
                    nice = 5\nrlimit_nofile = 9\ntimeout = 0\n\
                    [job_many]\nschedule = * * * * *\n_cmd_and_args = m\n_overlap = 1\n";
    house.jobs("hello", "* * * * * c\n", sections);
    let daemon = house.running().await;
    pass(MINUTE * 20).await;
    settled(&daemon).await;
    let of =
        |name: &str| runs(&house).iter().filter(|run| run.argv.last().unwrap() == name).count();
    assert_eq!((of("c"), of("hello"), of("m")), (16, 1, 16));
    let one = runs(&house).into_iter().find(|run| run.argv.len() == 3 && run.argv[0] == "a");
    let one = one.unwrap();
    assert_eq!((one.argv[1].as_str(), one.nice, one.rlimits.open_files), ("b c", 5, 9));
    let skipped = |results: &[RunResult]| {
        results.iter().filter(|result| matches!(result, RunResult::Skipped { .. })).count()
    };
    assert_eq!(skipped(&results(&daemon, "hello.one").await), 19);
    assert_eq!(skipped(&results(&daemon, "hello.crontab:1").await), 4);
    end_all(&house, &Ended::Exited { code: 0 });
    pass(MINUTE).await;
    settled(&daemon).await;
    assert_eq!((of("c"), of("hello")), (17, 2));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_is_killed_and_repeated_as_often_as_the_job_says() {
    let house = House::new();
    let section = "[job_slow]\nschedule = 0 0 1 1 *\n_cmd_and_args = slow\ntimeout = 100\n\
                   graceful_timeout = 5\n[job_sad]\nschedule = * * * * *\n_cmd_and_args = sad\n\
                   retries = 2\nretry_delay = 10\n";
    house.jobs("hello", "", section);
    let daemon = house.running().await;
    let asked = daemon.node.parts.jobs.run("hello.slow").await.unwrap();
    assert_eq!(asked.trigger, Trigger::Asked);
    let refused = daemon.node.parts.jobs.run("hello.slow").await.unwrap_err();
    assert!(refused.what.contains("runs already"), "{refused}");
    settled(&daemon).await;
    let process = format!("job.hello.slow@{}", asked.id);
    house.keeper.books().stubborn.insert(process.clone());
    pass(Duration::from_secs(98)).await;
    assert!(house.keeper.books().alive.contains_key(&process));
    pass(Duration::from_secs(4)).await;
    assert!(house.keeper.books().asked.contains(&format!("end {process}")), "SIGTERM first");
    assert!(house.keeper.books().alive.contains_key(&process));
    pass(Duration::from_secs(5)).await;
    settled(&daemon).await;
    assert!(!house.keeper.books().alive.contains_key(&process), "then SIGKILL");
    assert_eq!(results(&daemon, "hello.slow").await, [RunResult::TimedOut { after_s: 100 }]);
    // The other one failed meanwhile? It still runs: it does not overlap.
    let sad = |house: &House| runs(house).iter().filter(|run| run.argv == ["sad"]).count();
    assert_eq!(sad(&house), 1);
    for tries in 2..=3 {
        end_all(&house, &Ended::Exited { code: 1 });
        pass(Duration::from_secs(9)).await;
        assert_eq!(sad(&house), tries - 1);
        pass(Duration::from_secs(2)).await;
        assert_eq!(sad(&house), tries);
    }
    end_all(&house, &Ended::Exited { code: 1 });
    pass(Duration::from_secs(12)).await;
    let attempts: Vec<u32> = history(&daemon, "hello.sad")
        .await
        .iter()
        .filter(|run| run.was_started())
        .map(|run| run.attempt)
        .collect();
    assert_eq!(attempts[attempts.len() - 3..], [2, 1, 0], "{attempts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_dies_between_the_record_and_the_start_loses_no_run_and_doubles_none() {
    let house = House::new();
    house.jobs("hello", "* * * * * c\n", "");
    let daemon = house.running().await;
    pass(MINUTE).await;
    settled(&daemon).await;
    daemon.dies().await;
    // As if the keeper had never been asked.
    let process = runs(&house)[0].id.clone();
    house.keeper.books().alive.clear();
    house.keeper.books().runs.clear();
    let file = house
        .disk
        .held()
        .files
        .keys()
        .find(|file| {
            let is_record = !file.ends_with("clock.json") && !file.ends_with("boot.json");
            file.parent() == Some(house.places().jobs().as_path()) && is_record
        })
        .cloned()
        .unwrap();
    let text = super::kit::text(&house.disk, &file).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["runs"][0].as_object_mut().unwrap().remove("pid").unwrap();
    house.disk.held().files.insert(file, record.to_string().into_bytes());
    let daemon = house.running().await;
    settled(&daemon).await;
    let ids: Vec<String> = runs(&house).into_iter().map(|run| run.id).collect();
    assert_eq!((ids.len(), ids.first()), (1, Some(&process)), "it is started now");
    daemon.dies().await;
    // It lives: it is found again. It ends while nobody is there: its end is found.
    let daemon = house.running().await;
    settled(&daemon).await;
    assert_eq!(runs(&house).len(), 1);
    daemon.dies().await;
    house.keeper.books().ends(&process, Ended::Exited { code: 4 });
    let daemon = house.running().await;
    settled(&daemon).await;
    assert_eq!(results(&daemon, "hello").await, [RunResult::Failed { code: 4 }]);
    assert!(house.keeper.books().exits.is_empty());
    pass(MINUTE).await;
    settled(&daemon).await;
    assert_eq!(runs(&house).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_minute_that_came_while_a_daemon_was_away_for_a_moment_is_made_up_for() {
    let house = House::new();
    house.jobs("hello", "* * * * * c\n", "");
    let daemon = house.running().await;
    pass(MINUTE).await;
    settled(&daemon).await;
    daemon.dies().await;
    pass(MINUTE * 2).await;
    let daemon = house.running().await;
    settled(&daemon).await;
    assert_eq!(runs(&house).len(), 3);
    assert!(results(&daemon, "hello").await.is_empty(), "nothing is missed");
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_in_a_downtime_is_reported_and_made_up_for_once_where_wanted() {
    let house = House::new();
    let hourly = |name: &str, more: &str| {
        format!("[job_{name}]\nschedule = 20 * * * *\n_cmd_and_args = {name}\n{more}")
    };
    let sections = hourly("a", "") + &hourly("b", "_catch_up = 1\n");
    house.jobs("hello", "20 * * * * c\n@reboot r\n", &sections);
    let daemon = house.running().await;
    settled(&daemon).await;
    let names = |house: &House| -> Vec<String> {
        runs(house).iter().map(|run| run.argv.last().unwrap().clone()).collect()
    };
    assert_eq!(names(&house), ["r"]);
    daemon.dies().await;
    house.keeper.books().alive.clear();
    house.keeper.books().exits.clear();
    pass(MINUTE * 60 * 10).await;
    house.keeper.books().runs.clear();
    let daemon = house.running().await;
    settled(&daemon).await;
    assert_eq!(names(&house), ["b"], "once, whatever was missed");
    let missed = [RunResult::Missed { times: 10 }];
    for name in ["hello.a", "hello.b", "hello.crontab:1"] {
        assert_eq!(results(&daemon, name).await, missed, "{name}");
    }
    let caught_up = history(&daemon, "hello.b").await;
    assert_eq!(caught_up[0].trigger, Trigger::CatchUp);
    let facts = daemon.facts();
    let notes = daemon.status().await.notes;
    assert!(notes[0].contains("2 jobs missed a run while the node was down"), "{notes:?}");
    let told = facts
        .iter()
        .filter(|fact| matches!(fact, Fact::JobEnded { result: RunResult::Missed { .. }, .. }));
    assert_eq!(told.count(), 3);
    daemon.dies().await;
    let daemon = house.running().await;
    settled(&daemon).await;
    assert_eq!((names(&house).len(), results(&daemon, "hello.a").await.len()), (1, 1), "not again");
}

#[tokio::test(start_paused = true)]
async fn the_runs_of_a_plugin_that_goes_and_of_a_node_that_stops_are_ended_as_declared() {
    let house = House::new();
    let section = "[job_j]\nschedule = * * * * *\n_cmd_and_args = j\ndrain_timeout = 30\n";
    house.jobs("hello", "* * * * * c\n", section);
    house.jobs("other", "* * * * * d\n", "");
    let daemon = house.running().await;
    pass(MINUTE).await;
    settled(&daemon).await;
    assert_eq!(alive(&house), 3);
    std::fs::remove_file(house.link("hello")).unwrap();
    daemon.reload().await.unwrap();
    settled(&daemon).await;
    let ids = |house: &House| -> Vec<String> {
        let books = house.keeper.books();
        books.alive.keys().filter(|id| id.starts_with("job.")).cloned().collect()
    };
    assert_eq!(alive(&house), 2, "the line at once, the section has time: {:?}", ids(&house));
    let began = house.clock.now_ms();
    daemon.node.parts.jobs.gone("hello").await;
    let took = house.clock.now_ms() - began;
    assert!((25_000..31_000).contains(&took), "{took}");
    assert!(ids(&house).iter().all(|id| id.starts_with("job.other.")));
    pass(MINUTE * 3).await;
    settled(&daemon).await;
    assert_eq!(runs(&house).iter().filter(|run| run.id.starts_with("job.hello.")).count(), 2);
    daemon.stop().await;
    assert_eq!(alive(&house), 0);
    pass(MINUTE * 3).await;
    assert_eq!(alive(&house), 0, "a node that stops starts nothing");
}

#[tokio::test(start_paused = true)]
async fn a_repetition_that_waits_is_not_lost_with_its_daemon() {
    let house = House::new();
    let section = "[job_sad]\nschedule = * * * * *\n_cmd_and_args = sad\nretries = 1\n\
                   retry_delay = 100\n[job_asked]\nschedule = 0 0 1 1 *\n_cmd_and_args = a\n\
                   retries = 9\nretry_delay = 1\n";
    house.jobs("hello", "", section);
    let daemon = house.running().await;
    daemon.node.parts.jobs.run("hello.asked").await.unwrap();
    pass(MINUTE).await;
    settled(&daemon).await;
    let first = runs(&house).into_iter().find(|run| run.argv == ["sad"]).unwrap().id;
    end_all(&house, &Ended::Exited { code: 1 });
    settled(&daemon).await;
    let notes = daemon.status().await.notes;
    assert!(notes.iter().any(|note| note.contains("2 jobs failed at the last run")), "{notes:?}");
    // From now on it runs at no minute but for its repetition.
    house.jobs("hello", "", &section.replace("* * * * *", "0 0 1 1 *"));
    daemon.reload().await.unwrap();
    daemon.dies().await;
    pass(Duration::from_secs(30)).await;
    let daemon = house.running().await;
    pass(Duration::from_secs(60)).await;
    settled(&daemon).await;
    assert_eq!(runs(&house).len(), 2, "the pause is not over");
    pass(Duration::from_secs(12)).await;
    settled(&daemon).await;
    let all: Vec<String> = runs(&house).into_iter().map(|run| run.id).collect();
    assert_eq!(all[2..], [format!("{first}r1")], "and a run by hand is not repeated");
}

#[tokio::test(start_paused = true)]
async fn who_asks_a_daemon_that_has_just_come_is_answered_after_its_first_plan() {
    let house = House::new();
    house.jobs("hello", "0 0 1 1 * c\n", "");
    let daemon = house.daemon().await;
    let jobs = daemon.node.parts.jobs.clone();
    let asked = tokio::spawn(async move { (jobs.list().await, jobs.run("hello").await) });
    daemon.boot().await;
    let (listed, begun) = asked.await.unwrap();
    assert_eq!((listed.len(), begun.unwrap().trigger), (1, Trigger::Asked));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ended_while_the_disk_was_full_is_not_started_again() {
    let house = House::new();
    house.jobs("hello", "* * * * * c\n", "");
    let daemon = house.running().await;
    house.disk.held().full = true;
    pass(MINUTE).await;
    settled(&daemon).await;
    assert_eq!(runs(&house).len(), 1, "a full disk stops no job");
    end_all(&house, &Ended::Exited { code: 3 });
    settled(&daemon).await;
    assert_eq!(house.keeper.books().exits.len(), 1, "the keeper knows what no record says");
    daemon.dies().await;
    house.disk.held().full = false;
    let daemon = house.running().await;
    settled(&daemon).await;
    assert_eq!(runs(&house).len(), 1);
    assert_eq!(results(&daemon, "hello").await, [RunResult::Failed { code: 3 }]);
    assert!(house.keeper.books().exits.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_of_the_start_is_not_lost_with_the_first_daemon_and_not_started_twice() {
    let house = House::new();
    house.jobs("hello", "@reboot r\n* * * * * c\n", "");
    let daemon = house.running().await;
    settled(&daemon).await;
    let reboots = |house: &House| {
        runs(house).iter().filter(|run| run.argv.last().is_some_and(|last| last == "r")).count()
    };
    assert_eq!(reboots(&house), 1);
    daemon.dies().await;
    // As if it had died before its first plan was applied, while its first workers lived.
    let jobs = house.places().jobs();
    house.disk.held().files.retain(|file, _| !file.starts_with(&jobs));
    house.keeper.books().alive.retain(|id, _| !id.starts_with("job."));
    house.keeper.books().runs.clear();
    let daemon = house.running().await;
    settled(&daemon).await;
    assert_eq!(reboots(&house), 1, "the next daemon starts it");
    // The jobs go and come back: a run of a known minute is not started again.
    pass(MINUTE).await;
    settled(&daemon).await;
    let before = runs(&house).len();
    house.jobs("hello", "", "");
    daemon.reload().await.unwrap();
    house.jobs("hello", "@reboot r\n* * * * * c\n", "");
    daemon.reload().await.unwrap();
    settled(&daemon).await;
    assert_eq!(history(&daemon, "hello.crontab:2").await.len(), 1, "its record was read again");
    pass(MINUTE).await;
    settled(&daemon).await;
    assert_eq!(runs(&house).len(), before + 1);
    daemon.dies().await;
    let daemon = house.running().await;
    settled(&daemon).await;
    assert_eq!(reboots(&house), 1, "and no later one does");
}
