//! From loose requirements to exact versions, with uv or with pip.

use std::fs;
use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::{Command, Rules, Toolbox, clean};
use crate::progress::Progress;

/// The first pip that resolves without installing, and says what it would install.
const REPORTS: (u32, u32) = (22, 2);

impl Toolbox<'_> {
    /// Resolves loose requirements to a text of exact versions, one a line, sorted.
    pub(crate) fn freeze(
        &self,
        loose: &Path,
        rules: &Rules,
        progress: &mut dyn Progress,
    ) -> Result<String, Diagnostic> {
        match &self.uv {
            Some(uv) => {
                let mut command = clean(uv);
                command
                    .args(["pip", "compile", "--quiet", "--no-annotate", "--no-header", "--python"])
                    .arg(&self.interpreter.path);
                rules.constraints.iter().for_each(|file| {
                    command.arg("-c").arg(file);
                });
                rules.build_constraint.iter().for_each(|file| {
                    command.arg("--build-constraints").arg(file);
                });
                command.arg(loose);
                rules.apply(&mut command);
                self.run("resolving the Python requirements", command, progress)
                    .map(|text| text + "\n")
            }
            None => {
                drop(self.pip(progress)?);
                match self.pip_version() >= Some(REPORTS) {
                    true => self.freeze_with_pip(loose, rules, progress),
                    false => self.freeze_by_wheels(loose, rules, progress),
                }
            }
        }
    }

    fn freeze_with_pip(
        &self,
        loose: &Path,
        rules: &Rules,
        progress: &mut dyn Progress,
    ) -> Result<String, Diagnostic> {
        let report = disk::beside(&self.home.base().join("pip-report"), "new");
        let mut command = self.pip(progress)?;
        command
            .args(["install", "--quiet", "--dry-run", "--ignore-installed", "--report"])
            .arg(&report);
        let result = self.resolve(command, loose, rules, progress);
        let text = fs::read_to_string(&report);
        let _ = fs::remove_file(&report);
        result?;
        pinned(&text.map_err(|e| disk::failed("read", &report, e))?).ok_or_else(|| {
            Diagnostic::error("resolving the Python requirements failed")
                .because("pip's report is not as expected")
        })
    }

    /// Runs this command of pip for a list, with the rules.
    fn resolve(
        &self,
        mut command: Command,
        loose: &Path,
        rules: &Rules,
        progress: &mut dyn Progress,
    ) -> Result<String, Diagnostic> {
        rules.constraints.iter().for_each(|file| {
            command.arg("-c").arg(file);
        });
        self.constrain_builds(&mut command, rules);
        command.arg("-r").arg(loose);
        rules.apply(&mut command);
        self.run("resolving the Python requirements", command, progress)
    }

    /// A pip that cannot report what it resolves to (that of Python 2, and those of old
    /// interpreters) fetches it: the names of the wheels are the exact versions.
    fn freeze_by_wheels(
        &self,
        loose: &Path,
        rules: &Rules,
        progress: &mut dyn Progress,
    ) -> Result<String, Diagnostic> {
        let place = self.home.base().join("resolved");
        disk::sweep_beside(&place);
        let stage = disk::beside(&place, "stage");
        let mut command = self.pip(progress)?;
        command.args(["wheel", "--quiet", "--wheel-dir"]).arg(&stage);
        let result = self.resolve(command, loose, rules, progress);
        let names = fs::read_dir(&stage)
            .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>());
        let _ = disk::remove(&stage);
        result?;
        let names = names.map_err(|e| disk::failed("read", &stage, e))?;
        Ok(of_wheels(names.iter().filter_map(|name| name.to_str())))
    }
}

/// The `name==version` and `name @ address` lines of a pip installation report.
fn pinned(report: &str) -> Option<String> {
    let report: serde_json::Value = serde_json::from_str(report).ok()?;
    let mut lines = Vec::new();
    for item in report.get("install")?.as_array()? {
        let name = item.pointer("/metadata/name")?.as_str()?;
        let name = name.to_ascii_lowercase().replace('_', "-");
        let version = item.pointer("/metadata/version")?.as_str()?;
        let text = |path: &str| item.pointer(path).and_then(|value| value.as_str());
        let direct = item.get("is_direct").and_then(|value| value.as_bool()) == Some(true);
        let address = text("/download_info/url").filter(|_| direct);
        lines.push(match (address, text("/download_info/vcs_info/commit_id")) {
            (Some(url), Some(commit)) => {
                let below = text("/download_info/subdirectory");
                let below = below.map_or(String::new(), |path| format!("#subdirectory={path}"));
                format!("{name} @ git+{url}@{commit}{below}\n")
            }
            (Some(url), None) => format!("{name} @ {url}\n"),
            (None, _) => format!("{name}=={version}\n"),
        });
    }
    lines.sort();
    Some(lines.concat())
}

/// The `name==version` lines of wheels, by their file names.
fn of_wheels<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let line = |name: &str| {
        let mut parts = name.strip_suffix(".whl")?.split('-');
        let (name, version) = (parts.next()?, parts.next()?);
        Some(format!("{}=={version}\n", name.to_ascii_lowercase().replace('_', "-")))
    };
    let mut lines: Vec<String> = names.filter_map(line).collect();
    lines.sort();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pip_report_becomes_exact_versions() {
        let report = r#"{"install":[{"metadata":{"name":"Flask","version":"3.1.3"}},{"metadata":{"name":"a_b","version":"1"}}]}"#;
        assert_eq!(pinned(report).unwrap(), "a-b==1\nflask==3.1.3\n");
        let report = r#"{"install":[
            {"is_direct": true, "download_info": {"url": "https://h/x.git", "subdirectory": "d",
             "vcs_info": {"vcs": "git", "commit_id": "0a"}}, "metadata": {"name": "x", "version": "1"}},
            {"is_direct": true, "download_info": {"url": "https://h/y-1.whl", "archive_info": {}},
             "metadata": {"name": "y", "version": "1"}}]}"#;
        let lines = "x @ git+https://h/x.git@0a#subdirectory=d\ny @ https://h/y-1.whl\n";
        assert_eq!(pinned(report).unwrap(), lines);
        assert_eq!(pinned("{}"), None);
    }

    #[test]
    fn the_names_of_wheels_are_exact_versions() {
        let names = ["MarkupSafe-1.1.1-cp27-cp27mu-linux_x86_64.whl", "a_b-1.0+x-py2-none-any.whl"];
        let names = names.into_iter().chain(["c-1.tar.gz", ".mfserv"]);
        assert_eq!(of_wheels(names), "a-b==1.0+x\nmarkupsafe==1.1.1\n");
    }
}
