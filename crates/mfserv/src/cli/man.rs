//! `mfserv man`: the manual pages, made from the command line itself.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use mfserv_core::Diagnostic;

use super::print;
use super::report::Outcome;

/// What no flag tells, at the end of mfserv(1).
const MORE: &str = r#".SH "EXIT STATUS"
.TP
.B 0
It was done.
.TP
.B 1
It was tried, and failed; of \fBstatus\fR: the node is not well.
.TP
.B 2
The command line is wrong.
.TP
.B 3
The node is not running.
.TP
.B 4
A configuration is wrong.
.TP
.B 5
Refused: a conflict, a lock, a port that is taken.
.TP
.B 6
It took too long.
.SH ENVIRONMENT
.TP
.B MFMODULE_RUNTIME_HOME
The runtime home, without \fB\-\-home\fR.
.TP
.B MFCONFIG
The name that chooses variants of configuration keys.
.TP
.B MFSERV_SITE_DIR
The root of the site's configuration, instead of \fI/etc/metwork.config.d\fR.
.TP
.B METWORK_ALLOW_USAGE_BY_ROOT
With the value 1, nothing is said about being run by root.
.TP
.B NO_COLOR
No colours.
.SH FILES
Below the runtime home:
.TP
.I config/config.ini
The configuration of the node.
.TP
.I config/plugins/NAME.ini
What overrides the configuration of a plugin.
.TP
.I log/
The logs, rotated.
.TP
.I var/plugins/NAME
A link to what is current of a plugin.
.TP
.I var/data/NAME
What outlives the releases of a plugin.
"#;

#[derive(Debug, Args)]
pub struct Pages {
    /// Write all pages into this directory (`.../share/man/man1`); without it, mfserv(1) is printed.
    dir: Option<PathBuf>,
}

impl Pages {
    /// Writes or prints the pages of this command line.
    pub fn run(self, command: Command) -> Result<Outcome, Diagnostic> {
        // before the build, or the help of each command gets a page
        let mut command = command.disable_help_subcommand(true);
        command.build();
        let Some(dir) = self.dir else {
            print(&String::from_utf8_lossy(&page(&command, true)?));
            return Ok(Outcome::Done);
        };
        std::fs::create_dir_all(&dir).map_err(|e| not_written(&dir, e))?;
        let count = write(&command, &dir, true)?;
        print(&format!("{count} pages are written to {}\n", dir.display()));
        Ok(Outcome::Done)
    }
}

/// Writes the page of a command and those of its commands; returns how many.
fn write(command: &Command, dir: &Path, is_first: bool) -> Result<usize, Diagnostic> {
    let file = dir.join(Man::new(command.clone()).get_filename());
    std::fs::write(&file, page(command, is_first)?).map_err(|e| not_written(&file, e))?;
    let mut count = 1;
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        count += write(one, dir, false)?;
    }
    Ok(count)
}

fn page(command: &Command, is_first: bool) -> Result<Vec<u8>, Diagnostic> {
    let version = format!("mfserv {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(version).manual("mfserv").date(today());
    let mut text = Vec::new();
    let rendered = man.render(&mut text).and_then(|()| match is_first {
        true => text.write_all(MORE.as_bytes()),
        false => Ok(()),
    });
    rendered.map_err(|e| Diagnostic::error("a manual page cannot be made").because(e))?;
    // What follows the options is examples, and EXTRA is no section of manual pages (man-pages(7)).
    let text = String::from_utf8_lossy(&text).replace("\n.SH EXTRA\n", "\n.SH EXAMPLES\n");
    Ok(text.into_bytes())
}

/// The date of a page: SOURCE_DATE_EPOCH, else today.
fn today() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let given = given.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    given.unwrap_or_else(jiff::Timestamp::now).strftime("%Y-%m-%d").to_string()
}

fn not_written(path: &Path, error: std::io::Error) -> Diagnostic {
    Diagnostic::error(format!("cannot write {}", path.display())).because(error)
}
