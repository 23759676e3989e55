//! `[telegraf] agent=telegraf`: the configuration of the real Telegraf. With it, the program does
//! what the telemetry role does else: it receives points, aggregates and sends them, with the
//! same names, tags, fields and windows. (Written for Telegraf 1.29 and later.)

use std::fmt::Write;
use std::path::PathBuf;

use crate::keys::TELEGRAF_AGENT;
use crate::module_config::ModuleConfig;
use crate::plan::RoleProgram;
use crate::telemetry::{InfluxSettings, MetricsSettings, TelemetrySettings};

/// The variable of the environment that has the text of the configuration: the role writes it
/// to a file each time it starts, and becomes the program.
pub const CONFIG_VARIABLE: &str = "MFSERV_TELEGRAF_CONFIG";

/// Resolutions: name, which is also that of the retention policy, and period.
const RESOLUTIONS: [(&str, &str); 3] = [("fullres", "10s"), ("medres", "60s"), ("lowres", "1h")];

/// Kinds of file systems that hold no data, or those of an image.
pub const WITHOUT_DATA: [&str; 8] =
    ["tmpfs", "devtmpfs", "devfs", "iso9660", "overlay", "aufs", "squashfs", "autofs"];
/// Kinds behind a network or a program: asking one that does not answer would block. (All others
/// that begin with `fuse` too; Telegraf takes only whole names.)
pub const MAY_BLOCK: [&str; 17] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "lustre",
    "afs",
    "glusterfs",
    "fuse",
    "fuseblk",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.rclone",
    "fuse.glusterfs",
    "fuse.gvfsd-fuse",
];

/// How Telegraf is started, and what only the machine can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The command of the role that becomes the program.
    pub role: RoleProgram,
    /// The name of this host, a tag of every point.
    pub host: String,
    /// Where it receives lines: `var/telegraf.socket`.
    pub socket: PathBuf,
    /// The kernel measures pressure.
    pub pressure: bool,
}

/// Telegraf is asked for, and there is where to send points to.
pub fn is_wanted(config: &ModuleConfig) -> bool {
    config.get(TELEGRAF_AGENT) == "telegraf"
        && TelemetrySettings::new(config).metrics.influxdb.is_some()
}

/// The text of `telegraf.conf`; `None` if there is nowhere to send points to.
pub fn config(config: &ModuleConfig, program: &Program) -> Option<String> {
    let settings = TelemetrySettings::new(config).metrics;
    let influxdb = settings.influxdb.as_ref()?;
    let mut text = String::from("# Written by mfserv at each start: changes are lost.\n");
    // Writing to a String never fails.
    let _ = write!(
        text,
        "[global_tags]\n  module = \"mfserv\"\n\n[agent]\n  interval = \"10s\"\n  \
         round_interval = true\n  metric_batch_size = 1000\n  metric_buffer_limit = 10000\n  \
         collection_jitter = \"0s\"\n  flush_interval = \"10s\"\n  flush_jitter = \"0s\"\n  \
         hostname = {}\n\n",
        quoted(&program.host)
    );
    resolutions(&mut text);
    outputs(&mut text, influxdb);
    if settings.debug {
        text.push_str("[[outputs.file]]\n  files = [\"stdout\"]\n  data_format = \"influx\"\n\n");
    }
    inputs(&mut text, &settings, program);
    Some(text)
}

/// The three windows. A point that bypasses them is of `fullres`, unless it names one of the
/// others.
fn resolutions(text: &mut String) {
    text.push_str(
        "[[processors.override]]\n  [processors.override.tagpass]\n    bypassbasicstats = \
         [\"*\"]\n  [processors.override.tagdrop]\n    resolution = [\"fullres\", \"medres\", \
         \"lowres\"]\n  [processors.override.tags]\n    resolution = \"fullres\"\n\n",
    );
    for (resolution, period) in RESOLUTIONS {
        // The grace is that of the telemetry role: a point of an app may come a little late.
        let _ = write!(
            text,
            "[[aggregators.basicstats]]\n  period = \"{period}\"\n  grace = \"10s\"\n  \
             drop_original = true\n  stats = [\"min\", \"max\", \"mean\", \"sum\"]\n  tagexclude \
             = [\"resolution\"]\n  [aggregators.basicstats.tagdrop]\n    bypassbasicstats = \
             [\"*\"]\n  [aggregators.basicstats.tags]\n    resolution = \"{resolution}\"\n\n"
        );
    }
}

fn outputs(text: &mut String, influxdb: &InfluxSettings) {
    let url = quoted(&influxdb.url);
    if let Some(token) = &influxdb.token {
        let bucket = influxdb.bucket.as_deref().unwrap_or(&influxdb.database);
        let _ = write!(
            text,
            "[[outputs.influxdb_v2]]\n  urls = [{url}]\n  token = {}\n  organization = {}\n  \
             bucket = {}\n\n",
            quoted(token),
            quoted(influxdb.org.as_deref().unwrap_or_default()),
            quoted(bucket)
        );
        return;
    }
    for (resolution, _) in RESOLUTIONS {
        let _ = write!(
            text,
            "[[outputs.influxdb]]\n  urls = [{url}]\n  database = {}\n  skip_database_creation = \
             true\n  retention_policy = \"{resolution}\"\n",
            quoted(&influxdb.database)
        );
        let password = influxdb.username.as_ref().map(|_| influxdb.password.as_deref());
        let user = influxdb.username.as_deref().map(|user| ("username", user));
        let password = password.map(|password| ("password", password.unwrap_or_default()));
        for (key, value) in user.into_iter().chain(password) {
            let _ = writeln!(text, "  {key} = {}", quoted(value));
        }
        let _ =
            write!(text, "  [outputs.influxdb.tagpass]\n    resolution = [\"{resolution}\"]\n\n");
    }
}

fn inputs(text: &mut String, settings: &MetricsSettings, program: &Program) {
    let path = quoted(&format!("unix://{}", encoded(&program.socket.to_string_lossy())));
    let _ = write!(
        text,
        "[[inputs.socket_listener]]\n  service_address = {path}\n  socket_mode = \"0600\"\n  \
         data_format = \"influx\"\n\n"
    );
    if let Some(port) = settings.statsd_port {
        // MFSERV's points have no median.
        let _ = write!(
            text,
            "[[inputs.statsd]]\n  service_address = \"127.0.0.1:{port}\"\n  percentiles = \
             [90.0]\n  allowed_pending_messages = 100000\n  fieldexclude = [\"median\"]\n\n"
        );
    }
    if settings.host_points {
        let ignored: Vec<String> =
            WITHOUT_DATA.iter().chain(&MAY_BLOCK).map(|kind| quoted(kind)).collect();
        let collected = if program.pressure { "  collect = [\"psi\"]\n" } else { "" };
        let _ = write!(
            text,
            "[[inputs.cpu]]\n  percpu = true\n  totalcpu = true\n  collect_cpu_time = false\n\
             [[inputs.mem]]\n[[inputs.swap]]\n[[inputs.disk]]\n  ignore_fs = [{}]\n\
             [[inputs.diskio]]\n  skip_serial_number = true\n[[inputs.net]]\n[[inputs.system]]\n\
             [[inputs.processes]]\n[[inputs.kernel]]\n{collected}",
            ignored.join(", ")
        );
    }
}

/// A string of TOML. A dollar is written as its code, since Telegraf replaces `$VARIABLE`
/// before it reads the TOML.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '$' => text.push_str("\\u0024"),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04X}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// A path in a URL.
fn encoded(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                text.push(byte as char);
            }
            byte => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn text_of(sets: &[(&str, &str, &str)]) -> Option<String> {
        let sets: Vec<(String, String, String)> = sets
            .iter()
            .map(|(section, key, value)| (section.to_string(), key.to_string(), value.to_string()))
            .collect();
        let module = crate::module_config::resolve(&[], &sets, &BTreeMap::new(), "").config;
        let role = RoleProgram { argv: Vec::new(), env: BTreeMap::new(), cwd: "/".into() };
        let socket = "/a home/var/telegraf.socket".into();
        config(&module, &Program { role, host: "h".into(), socket, pressure: false })
    }

    const URL: (&str, &str, &str) = ("influxdb", "url", "http://127.0.0.1:8086");

    #[test]
    fn there_is_no_configuration_without_an_influxdb() {
        assert_eq!(text_of(&[]), None);
    }

    #[test]
    fn secrets_and_paths_are_quoted_so_that_telegraf_reads_what_was_meant() {
        let text = text_of(&[
            URL,
            ("influxdb", "username", "ann"),
            ("influxdb", "_password", "a\"b\\c$HOME"),
        ]);
        let text = text.unwrap();
        assert!(text.contains("  password = \"a\\\"b\\\\c\\u0024HOME\"\n"), "{text}");
        assert!(text.contains("\"unix:///a%20home/var/telegraf.socket\""), "{text}");
        assert_eq!(text.matches("[[outputs.influxdb]]").count(), 3);
        assert!(!text.contains("psi"), "this kernel does not measure pressure: {text}");
    }

    #[test]
    fn keys_leave_inputs_and_outputs_out() {
        let text = text_of(&[URL, ("influxdb", "_token", "t"), ("telegraf", "statsd_port", "0")]);
        let text = text.unwrap();
        let inputs: Vec<&str> = text.lines().filter(|line| line.starts_with("[[inputs.")).collect();
        assert_eq!(inputs, ["[[inputs.socket_listener]]"]);
        let outputs: Vec<&str> =
            text.lines().filter(|line| line.starts_with("[[outputs.")).collect();
        assert_eq!(outputs, ["[[outputs.influxdb_v2]]"]);
    }
}
