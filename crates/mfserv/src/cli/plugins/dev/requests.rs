//! The requests that a plugin has answered, a line for each.

use std::path::PathBuf;

use mfserv_telemetry::Follower;
use serde::Deserialize;

use super::lines::end_of;
use crate::cli::output::for_terminal;
use crate::cli::report::{Colour, paint};

/// The most that are shown of one look: a load test must not hide what programs say.
const MOST: usize = 40;

/// Follows the access log of the node.
pub struct Requests {
    follower: Follower,
    plugin: String,
}

/// What is read of a line of the access log.
#[derive(Deserialize)]
struct Answered {
    #[serde(default)]
    plugin: String,
    method: String,
    uri: String,
    status: u16,
    /// Seconds.
    duration: f64,
    cause: Option<String>,
}

impl Requests {
    /// From now on.
    pub fn new(access_log: PathBuf, plugin: &str) -> Requests {
        let end = end_of(&access_log);
        Requests { follower: Follower::new([(access_log, end)]), plugin: plugin.into() }
    }

    /// Those that were answered since the last time.
    pub fn take(&mut self) -> Vec<String> {
        let (mut lines, mut more) = (Vec::new(), 0);
        let plugin = &self.plugin;
        self.follower.poll(&mut |_, line| {
            let Ok(one) = serde_json::from_slice::<Answered>(line) else { return };
            match one.plugin == *plugin {
                true if lines.len() < MOST => lines.push(one.line()),
                true => more += 1,
                false => {}
            }
        });
        if more > 0 {
            lines.push(format!("… and {more} more requests"));
        }
        lines
    }
}

impl Answered {
    /// `GET /env 200 3 ms`
    fn line(&self) -> String {
        let cause = self.cause.iter().map(|cause| format!(" ({cause})")).collect::<String>();
        let what = format!("{} {} {}{cause}", self.method, self.uri, self.status);
        let ms = (self.duration * 1000.0).round();
        let line = format!("{what} {ms} ms");
        let text = for_terminal(&line);
        match self.status {
            500.. => paint(&text, Colour::Bad),
            400.. => paint(&text, Colour::Doubtful),
            _ => text.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_requests_of_a_plugin_are_lines_and_a_flood_of_them_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nginx_access.log");
        let line = |plugin: &str, uri: &str, status: u16, more: &str| {
            format!(
                "{{\"method\":\"GET\",\"uri\":\"{uri}\",\"status\":{status},\"duration\":0.0034,\
                 \"plugin\":\"{plugin}\"{more}}}\n"
            )
        };
        std::fs::write(&path, line("shop", "/before", 200, "")).unwrap();
        let mut requests = Requests::new(path.clone(), "shop");
        let mut log = std::fs::File::options().append(true).open(&path).unwrap();
        let some = [
            line("shop", "/env?a=1", 200, ""),
            line("blog", "/", 200, ""),
            "not JSON\n".into(),
            line("shop", "/x", 503, ",\"cause\":\"crashing\""),
        ];
        log.write_all(some.concat().as_bytes()).unwrap();
        assert_eq!(requests.take(), ["GET /env?a=1 200 3 ms", "GET /x 503 (crashing) 3 ms"]);
        log.write_all(line("shop", "/", 200, "").repeat(MOST + 7).as_bytes()).unwrap();
        let many = requests.take();
        assert_eq!((many.len(), many[MOST].as_str()), (MOST + 1, "… and 7 more requests"));
    }
}
