//! The jobs of a plugin: lines of its `crontab`, and sections `[job_NAME]`.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Location};
use crate::fingerprint;
use crate::job::{JobSpec, MOST_AT_ONCE};
use crate::keys::MISC_CORE_SIZE_KIB;
use crate::output::Output;
use crate::plan::{Inputs, Loaded, PluginInput, command};
use crate::plugin_spec::JobSection;
use crate::watcher::{Rlimits, release_in};

/// A line of a `crontab`, with its variables filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrontabLine {
    /// Where it is.
    pub at: Location,
    /// When it runs, as written: five fields, or a name such as `@daily`.
    pub schedule: String,
    /// What the shell runs.
    pub command: String,
    /// What the command reads from standard input.
    pub input: String,
    /// Variables that were assigned above it.
    pub env: BTreeMap<String, String>,
}

/// The shell of a `crontab` that sets none (crontab(5)).
const SHELL: &str = "/bin/sh";
/// How long a run of a line has after SIGTERM, seconds: as an extra daemon by default.
const GRACEFUL_TIMEOUT_S: u64 = 10;

pub(super) fn of_plugin(
    plugin: &PluginInput,
    loaded: &Loaded,
    inputs: &Inputs,
    problems: &mut Vec<Diagnostic>,
) -> Vec<JobSpec> {
    let maker = Maker { plugin, loaded, inputs };
    let mut jobs = maker.lines();
    for section in &loaded.spec.jobs {
        match maker.section(section) {
            Ok(job) => jobs.push(job),
            Err(problem) => problems.push(problem),
        }
    }
    jobs
}

struct Maker<'a> {
    plugin: &'a PluginInput,
    loaded: &'a Loaded,
    inputs: &'a Inputs<'a>,
}

impl Maker<'_> {
    fn lines(&self) -> Vec<JobSpec> {
        // Equal lines are different jobs: cron runs each of them.
        let mut equal: BTreeMap<u64, u32> = BTreeMap::new();
        let lines = self.loaded.crontab.iter().map(|line| {
            let text = [&*line.schedule, &line.command, &line.input].join("\0");
            let hash = fingerprint::of(text.as_bytes());
            let nth = equal.entry(hash).or_default();
            *nth += 1;
            let key = match nth {
                1 => format!("+{hash:016x}"),
                nth => format!("+{hash:016x}+{nth}"),
            };
            self.line(line, key)
        });
        lines.collect()
    }

    fn line(&self, line: &CrontabLine, key: String) -> JobSpec {
        let mut env = self.loaded.env.clone();
        env.insert("SHELL".into(), SHELL.into());
        env.extend(line.env.clone());
        let shell = env.get("SHELL").cloned().unwrap_or_default();
        let home = env.get("HOME").filter(|home| !home.is_empty());
        JobSpec {
            cwd: home.map_or_else(|| self.plugin.dir.clone(), Into::into),
            env,
            // What a line of a crontab sets is nearer to its command.
            secrets: self.loaded.secrets.clone().without(&line.env),
            argv: vec![shell, "-c".into(), line.command.clone()],
            input: line.input.clone(),
            output: self.output(format!("crontab_{}", self.plugin.name)),
            rlimits: self.limits(Rlimits::default()),
            nice: 0,
            timeout_s: 0,
            drain_timeout_s: 0,
            graceful_timeout_s: GRACEFUL_TIMEOUT_S,
            retries: 0,
            retry_delay_s: 0,
            at_once: MOST_AT_ONCE,
            catch_up: false,
            plugin: self.plugin.name.clone(),
            name: format!("crontab:{}", line.at.line),
            key,
            schedule: line.schedule.clone(),
            command: line.command.clone(),
            at: line.at.clone(),
            release: release_in(&self.plugin.dir, &self.plugin.name).to_owned(),
        }
    }

    fn section(&self, section: &JobSection) -> Result<JobSpec, Diagnostic> {
        let dir = self.plugin.dir.to_string_lossy();
        let values = [
            ("{plugin_name}", self.plugin.name.as_str()),
            ("{plugin_dir}", &dir),
            ("{job_name}", section.name.as_str()),
        ];
        let argv = command::split_command(&section.command, &[], &values).map_err(|why| {
            Diagnostic::error(format!("{}.{} is not run", self.plugin.name, section.name))
                .about(&self.plugin.name)
                .because(format!("its _cmd_and_args: {why}"))
                .help("correct it in the plugin's config.ini")
        })?;
        let mut env = self.loaded.env.clone();
        if section.debug {
            env.insert("MFLOG_MINIMAL_LEVEL".into(), "DEBUG".into());
            env.insert("MFSERV_LOG_MINIMAL_LEVEL".into(), "DEBUG".into());
        }
        Ok(JobSpec {
            plugin: self.plugin.name.clone(),
            name: section.name.clone(),
            key: section.name.clone(),
            schedule: section.schedule.clone(),
            command: section.command.clone(),
            argv,
            env,
            secrets: self.loaded.secrets.clone(),
            cwd: self.plugin.dir.clone(),
            input: String::new(),
            output: self.output(format!("job_{}_{}", self.plugin.name, section.name)),
            rlimits: self.limits(section.rlimits),
            nice: section.nice,
            timeout_s: section.timeout_s,
            drain_timeout_s: section.drain_timeout_s,
            graceful_timeout_s: section.graceful_timeout_s,
            retries: section.retries,
            retry_delay_s: section.retry_delay_s,
            at_once: if section.overlap { MOST_AT_ONCE } else { 1 },
            catch_up: section.catch_up,
            at: section.at.clone(),
            release: release_in(&self.plugin.dir, &self.plugin.name).to_owned(),
        })
    }

    fn limits(&self, own: Rlimits) -> Rlimits {
        Rlimits { core_kib: self.inputs.module.get(MISC_CORE_SIZE_KIB), ..own }
    }

    fn output(&self, stem: String) -> Output {
        let stdout = self.inputs.log_dir.join(format!("{stem}.log"));
        Output { stdout, stderr: None, rotation: self.inputs.module.rotation() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Location;
    use crate::plan::{Plan, tests::inputs, tests::module, tests::plugin};

    fn line(number: u32, command: &str) -> CrontabLine {
        CrontabLine {
            at: Location::new("/p/crontab", number),
            schedule: "0 1 * * *".into(),
            command: command.into(),
            input: String::new(),
            env: BTreeMap::new(),
        }
    }

    fn planned(lines: Vec<CrontabLine>, sections: &str) -> Plan {
        let mut input = plugin("p", sections);
        if let Ok(loaded) = &mut input.loaded {
            loaded.env.insert("HOME".into(), "/home/me".into());
            loaded.crontab = lines;
        }
        Plan::new(inputs(&module(""), vec![input]))
    }

    #[test]
    fn a_line_runs_by_the_shell_of_its_crontab_in_home() {
        let mut other = line(9, "b");
        other.env = [("SHELL", "/bin/bash"), ("HOME", "/srv")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let plan = planned(vec![line(3, "a"), other], "");
        let job = |name: &str| &plan.jobs[name];
        assert_eq!(job("p.crontab:3").argv, ["/bin/sh", "-c", "a"]);
        assert_eq!(job("p.crontab:3").cwd, std::path::Path::new("/home/me"));
        assert_eq!(job("p.crontab:9").argv[0], "/bin/bash");
        assert_eq!(job("p.crontab:9").cwd, std::path::Path::new("/srv"));
        assert_eq!((job("p.crontab:9").at_once, job("p.crontab:9").timeout_s), (16, 0));
    }

    #[test]
    fn a_line_keeps_its_identity_when_it_moves_and_equal_lines_have_two() {
        let keys = |plan: &Plan| plan.jobs.values().map(|job| job.key.clone()).collect::<Vec<_>>();
        let before = planned(vec![line(1, "a"), line(2, "b")], "");
        let after = planned(vec![line(5, "b"), line(7, "a"), line(8, "a")], "");
        let (before, after) = (keys(&before), keys(&after));
        assert_eq!((&before[0], &before[1]), (&after[1], &after[0]));
        assert!(after[2].starts_with(&format!("{}+", after[1])), "{after:?}");
    }

    #[test]
    fn a_section_is_a_job_with_its_limits_and_is_in_no_environment() {
        let section = "[job_j]\nschedule=@daily\n_cmd_and_args=run {job_name} 'a b'\nretries=2\n\
                       nice=3\n_catch_up=1\n";
        let plan = planned(Vec::new(), section);
        let job = &plan.jobs["p.j"];
        assert_eq!(job.argv, ["run", "j", "a b"]);
        assert_eq!((job.at_once, job.retries, job.nice, job.catch_up), (1, 2, 3, true));
        assert_eq!((job.timeout_s, job.retry_delay_s, job.graceful_timeout_s), (3600, 60, 10));
        assert!(!job.env.keys().any(|name| name.contains("JOB")), "{:?}", job.env);
        let refused = plugin("p", "[job_j]\nschedule=@daily\n").loaded.unwrap_err();
        assert!(refused[0].to_string().contains("_cmd_and_args"), "{}", refused[0]);
    }
}
