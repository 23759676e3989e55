//! New plugins, made from templates that are part of the binary.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mfserv_core::names::check_plugin_name;
use mfserv_core::{Diagnostic, Kind};
use minijinja::{Environment, UndefinedBehavior, context};

use crate::home::Home;
use mfserv_platform::disk;

mod catalog;

pub use catalog::Template;
use catalog::{SHARED, Source, TEMPLATES, WELCOME};

/// The name that stands for the template used when none is named.
pub const DEFAULT: &str = "default";
/// What `default` is another name of.
const DEFAULT_IS: &str = "python3_flask";

/// All templates, by name.
pub fn list() -> &'static [Template] {
    TEMPLATES
}

/// The template of a name (`default` included).
pub fn find(name: &str) -> Option<&'static Template> {
    let name = if name == DEFAULT { DEFAULT_IS } else { name };
    TEMPLATES.iter().find(|template| template.name == name)
}

/// One question asked when a plugin is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The name of the answer.
    pub key: &'static str,
    /// The answer when none is given.
    pub default: &'static str,
    /// The possible answers, if they are limited to a choice (numbered from 1).
    pub choices: &'static [&'static str],
}

const fn question(key: &'static str, default: &'static str) -> Question {
    Question { key, default, choices: &[] }
}

/// The questions, in the order in which they are asked.
pub const QUESTIONS: &[Question] = &[
    question("version", "0.0.1"),
    question("release", "1"),
    question("one_line_summary", "one line summary"),
    Question {
        key: "license",
        default: "Proprietary",
        choices: &["Proprietary", "BSD", "MIT", "GPL", "Specific"],
    },
    question("url", "http://yourpluginhomepage"),
    question("maintainer", "Firstname FAMILYNAME <email>"),
    question("vendor", "Vendor"),
];

/// The answers to [`QUESTIONS`]; the default ones are those of `--no-input`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers(Vec<String>);

impl Default for Answers {
    fn default() -> Self {
        Self(QUESTIONS.iter().map(|question| question.default.to_string()).collect())
    }
}

impl Answers {
    /// Sets the answer to the question `key`; the error says what is wrong with
    /// it. An empty answer is the default one; the number of a choice is that choice.
    pub fn set(&mut self, key: &str, answer: &str) -> Result<(), String> {
        let found = QUESTIONS.iter().enumerate().find(|(_, question)| question.key == key);
        let (index, question) = found.ok_or_else(|| format!("there is no question {key}"))?;
        self.0[index] = check_answer(question, answer.trim())?;
        Ok(())
    }

    /// The answer to the question `key`; empty if there is no such question.
    pub fn get(&self, key: &str) -> &str {
        let index = QUESTIONS.iter().position(|question| question.key == key);
        index.and_then(|index| self.0.get(index)).map_or("", String::as_str)
    }
}

fn check_answer(question: &Question, answer: &str) -> Result<String, String> {
    if answer.is_empty() {
        return Ok(question.default.into());
    }
    if !question.choices.is_empty() {
        let numbered = answer.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let choice = match numbered {
            Some(index) => question.choices.get(index),
            None => question.choices.iter().find(|choice| choice.eq_ignore_ascii_case(answer)),
        };
        return choice
            .map(|choice| (*choice).to_string())
            .ok_or_else(|| format!("{} is one of: {}", question.key, question.choices.join(", ")));
    }
    if answer.len() > 200 || answer.chars().any(char::is_control) {
        return Err(format!("{} is one line of at most 200 characters", question.key));
    }
    if answer.contains("{{") || answer.contains("{%") || answer.contains("{#") {
        return Err(format!("{} can't contain {{{{, {{% or {{#", question.key));
    }
    let versioned = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if ["version", "release"].contains(&question.key) && !answer.chars().all(versioned) {
        return Err(format!(
            "{} is made of lower case letters, digits, -, _ and . only",
            question.key
        ));
    }
    Ok(answer.into())
}

/// Makes a new plugin: the directory `name` in `parent`, which must not exist
/// yet. Returns its path. Either all of it is made or nothing.
pub fn create(
    template: &str,
    name: &str,
    answers: &Answers,
    parent: &Path,
) -> Result<PathBuf, Diagnostic> {
    let template = find(template).ok_or_else(|| {
        let names: Vec<&str> = TEMPLATES.iter().map(|one| one.name).collect();
        Diagnostic::error(format!("this template [{template}] does not exist"))
            .kind(Kind::Usage)
            .help(format!("the templates are: {DEFAULT}, {}", names.join(", ")))
    })?;
    check_plugin_name(name).map_err(|because| {
        Diagnostic::error(format!("the plugin name {name:?} is not valid"))
            .kind(Kind::Usage)
            .because(because)
    })?;
    if let Some(because) = template.refuses(name) {
        return Err(Diagnostic::error(format!("the plugin name {name:?} is not valid"))
            .kind(Kind::Usage)
            .because(because)
            .help("choose another name"));
    }
    let place = parent.join(name);
    if fs::symlink_metadata(&place).is_ok() {
        let there = format!("the subdirectory {name} already exists in {}", parent.display());
        return Err(Diagnostic::error(there).kind(Kind::Refused).help(format!(
            "choose another name; `mfserv init {name}` makes a plugin of an app that is there"
        )));
    }
    let mut files = vec![label(name), version_line()];
    let own = |source: &&Source| !template.files.iter().any(|one| one.path == source.path);
    for source in SHARED.iter().filter(own).chain(template.files) {
        files.push(TreeFile {
            path: source.path.replace("NAME", name),
            text: text_of(source, template, name, answers)?,
            program: source.program,
        });
    }
    write_tree(&place, &files)?;
    Ok(place)
}

/// Writes out the plugin `welcome`, which comes with mfserv, below
/// `var/internal`, if it is not there in this version yet. Returns its path.
pub fn materialise_welcome(home: &Home) -> Result<PathBuf, Diagnostic> {
    let place = home.internal("welcome");
    let mut files = vec![label("welcome"), version_line()];
    files.extend(WELCOME.iter().map(|source| TreeFile::plain(source.path, source.text)));
    let same = |file: &TreeFile| {
        fs::read(place.join(&file.path)).is_ok_and(|found| found == file.text.as_bytes())
    };
    if !files.iter().all(same) {
        write_tree(&place, &files)?;
    }
    Ok(place)
}

/// A file to write.
struct TreeFile {
    path: String,
    text: String,
    program: bool,
}

impl TreeFile {
    fn plain(path: &str, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), program: false }
    }
}

fn label(name: &str) -> TreeFile {
    TreeFile::plain(".layerapi2_label", format!("plugin_{name}@mfserv\n"))
}

fn version_line() -> TreeFile {
    TreeFile::plain(".plugin_format_version", format!("{}\n", env!("CARGO_PKG_VERSION")))
}

fn text_of(
    source: &Source,
    template: &Template,
    name: &str,
    answers: &Answers,
) -> Result<String, Diagnostic> {
    if [".gitignore", ".releaseignore"].contains(&source.path) {
        return Ok(format!("{}{}", source.text, template.made));
    }
    if !source.rendered {
        return Ok(source.text.to_string());
    }
    let mut engine = Environment::new();
    engine.set_trim_blocks(true);
    engine.set_lstrip_blocks(true);
    engine.set_keep_trailing_newline(true);
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    let npm_name = name.to_ascii_lowercase();
    let values = context! {
        name,
        npm_name => npm_name.trim_start_matches(['_', '-']),
        kind => template.kind,
        web => template.web,
        django => template.name == "python3_django",
        command => template.command,
        debug_options => template.debug_options,
        stop_signal => template.stop_signal,
        keep_alive => template.keep_alive,
        version => answers.get("version"),
        release => answers.get("release"),
        summary => answers.get("one_line_summary"),
        license => answers.get("license"),
        url => answers.get("url"),
        maintainer => answers.get("maintainer"),
        vendor => answers.get("vendor"),
    };
    let tidy = |text: String| match source.path.ends_with(".py") {
        // Python keeps its two blank lines between functions
        true => text,
        false => collapse_blank_lines(&text),
    };
    engine.render_str(source.text, values).map(tidy).map_err(|e| {
        Diagnostic::error(format!("the template {} is broken", template.name))
            .because(format!("{}: {e:#}", source.path))
    })
}

/// At most one blank line in a row.
fn collapse_blank_lines(text: &str) -> String {
    let mut collapsed = String::with_capacity(text.len());
    let mut blank = false;
    for line in text.lines() {
        if line.trim().is_empty() && blank {
            continue;
        }
        blank = line.trim().is_empty();
        collapsed.push_str(line);
        collapsed.push('\n');
    }
    collapsed
}

/// Writes files beside `place` and puts them there in one step.
fn write_tree(place: &Path, files: &[TreeFile]) -> Result<(), Diagnostic> {
    if let Some(parent) = place.parent() {
        disk::create_dir(parent)?;
    }
    disk::sweep_beside(place);
    let stage = disk::beside(place, "stage");
    disk::remove(&stage)?;
    let written = files.iter().try_for_each(|file| write_file(&stage, file));
    let result = written.and_then(|()| disk::swap_in(&stage, place));
    if result.is_err() {
        let _ = disk::remove(&stage);
    }
    result
}

fn write_file(stage: &Path, file: &TreeFile) -> Result<(), Diagnostic> {
    let path = stage.join(&file.path);
    if let Some(parent) = path.parent() {
        disk::create_dir(parent)?;
    }
    let mode = fs::Permissions::from_mode(if file.program { 0o755 } else { 0o644 });
    fs::write(&path, &file.text)
        .and_then(|()| fs::set_permissions(&path, mode))
        .map_err(|e| disk::failed("write", &path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(template: &str, name: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let place = create(template, name, &Answers::default(), folder.path()).unwrap();
        (folder, place)
    }

    #[test]
    fn every_template_makes_the_files_that_a_plugin_needs() {
        for template in list() {
            let (folder, place) = make(template.name, "foo");
            for file in [
                ".layerapi2_label",
                ".layerapi2_dependencies",
                ".plugin_format_version",
                ".releaseignore",
                ".autorestart_includes",
                ".autorestart_excludes",
                ".gitignore",
                "Makefile",
                "config.ini",
            ] {
                let text = fs::read_to_string(place.join(file)).unwrap();
                assert!(!text.trim().is_empty(), "{}: {file}", template.name);
                assert!(!text.contains("{%"), "{}: {file}: {text}", template.name);
            }
            assert_eq!(crate::label::read_name(&place).unwrap(), "foo");
            assert_eq!(place.join("crontab").exists(), template.name != "static");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside");
        }
    }

    #[test]
    fn the_flask_template_has_the_command_of_mfserv_and_a_clean_stop() {
        let (_folder, place) = make(DEFAULT, "foo");
        let config = fs::read_to_string(place.join("config.ini")).unwrap();
        for line in [
            "_cmd_and_args=bjoern_wrapper.py {debug_extra_options} --timeout={timeout} {app_name}.wsgi:app \"{unix_socket_path}\"",
            "numprocesses={{MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2}}",
            "smart_stop_signal=2",
            "_add_plugin_dir_to_python_path=true",
            "_version=0.0.1",
            "_debug_extra_options=--debug --debug-evalex",
        ] {
            assert!(config.lines().any(|found| found == line), "{line}\n{config}");
        }
        assert!(config.trim_end().ends_with("[custom]"));
        assert!(!config.contains("\n\n\n"));
    }

    #[test]
    fn a_template_without_web_has_no_app_and_a_place_for_programs() {
        for name in ["python3_noweb", "node_noweb"] {
            let (_folder, place) = make(name, "foo");
            let config = fs::read_to_string(place.join("config.ini")).unwrap();
            for absent in ["app_main", "_extra_nginx", "_add_plugin_dir_to_lua_path"] {
                assert!(!config.contains(absent), "{name}: {absent}");
            }
            assert!(config.contains("#[extra_daemon_foo]") && place.join("bin/README").is_file());
        }
    }

    #[test]
    fn the_django_template_has_its_project_as_files_and_refuses_two_names() {
        let (folder, place) = make("python3_django", "foo");
        for file in ["manage.py", "postinstall"] {
            let mode = fs::metadata(place.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755, "{file}");
        }
        let settings = fs::read_to_string(place.join("foo/settings.py")).unwrap();
        assert!(settings.contains("ROOT_URLCONF = \"foo.urls\"") && !settings.contains("GDAL"));
        assert!(fs::read_to_string(place.join("Makefile")).unwrap().contains("collectstatic:"));
        for file in [".gitignore", ".releaseignore"] {
            let text = fs::read_to_string(place.join(file)).unwrap();
            assert!(text.ends_with("\n/main/static/admin/\n"), "{file}: {text}");
        }
        for name in ["main", "django"] {
            let error = create("python3_django", name, &Answers::default(), folder.path());
            assert_eq!(error.unwrap_err().kind, Kind::Usage);
        }
    }

    #[test]
    fn the_static_template_has_no_command() {
        let (_folder, place) = make("static", "foo");
        let config = fs::read_to_string(place.join("config.ini")).unwrap();
        for key in ["_cmd_and_args", "numprocesses", "timeout=0", "rlimit", "debug="] {
            assert!(!config.lines().any(|line| line.starts_with(key)), "{key}");
        }
        assert!(config.lines().any(|line| line == "_static_url_prefix="));
        let page = fs::read_to_string(place.join("main/index.html")).unwrap();
        assert!(page.contains("<title>Plugin foo default home page</title>"));
    }

    #[test]
    fn no_template_limits_what_its_server_needs() {
        for template in TEMPLATES.iter().filter(|template| template.name != "static") {
            let (_folder, place) = make(template.name, "foo");
            let config = fs::read_to_string(place.join("config.ini")).unwrap();
            let has = |text: &str| config.lines().any(|l| l.trim_start_matches('#') == text);
            let has_both = has("memory_limit = 1G") && has("rlimit_fsize = 0");
            assert!(has_both && !config.contains("rlimit_as ="), "{}", template.name);
        }
    }

    #[test]
    fn the_node_template_has_a_name_that_npm_accepts() {
        let (_folder, place) = make("node", "_Foo");
        let package = fs::read_to_string(place.join("package.json")).unwrap();
        let package: serde_json::Value = serde_json::from_str(&package).unwrap();
        assert_eq!(package["name"], "foo");
        assert!(place.join("_Foo/server.js").is_file());
    }

    #[test]
    fn what_can_not_be_made_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let answers = Answers::default();
        for (template, name) in
            [("nope", "foo"), ("static", "plugin_x"), ("static", "../x"), ("static", "")]
        {
            assert!(create(template, name, &answers, folder.path()).is_err(), "{template} {name}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        create("static", "foo", &answers, folder.path()).unwrap();
        assert_eq!(
            create("static", "foo", &answers, folder.path()).unwrap_err().kind,
            Kind::Refused
        );
    }

    #[test]
    fn an_answer_is_checked() {
        let mut answers = Answers::default();
        assert!(answers.set("version", "1.0 beta").is_err());
        assert!(answers.set("license", "9").is_err());
        assert!(answers.set("vendor", "{{ x }}").is_err());
        assert!(answers.set("nope", "x").is_err());
        answers.set("license", "2").unwrap();
        answers.set("version", "").unwrap();
        assert_eq!((answers.get("license"), answers.get("version")), ("BSD", "0.0.1"));
    }

    #[test]
    fn the_welcome_plugin_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let place = materialise_welcome(&home).unwrap();
        let page = place.join("main/index.html");
        let first = fs::metadata(&page).unwrap().modified().unwrap();
        materialise_welcome(&home).unwrap();
        assert_eq!(fs::metadata(&page).unwrap().modified().unwrap(), first);
        fs::write(&page, "changed").unwrap();
        materialise_welcome(&home).unwrap();
        assert!(fs::read_to_string(&page).unwrap().contains("mfserv is running"));
    }
}
