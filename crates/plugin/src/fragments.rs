//! Fragments of nginx's configuration: files of a plugin, templates in which its environment is
//! filled in.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::route::{AppFragments, Fragment, Fragments};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

/// Steps that a template may take.
const FUEL: u64 = 1_000_000;
/// The longest file, and the longest text that it may become, bytes.
const MAX_BYTES: usize = 1 << 20;

/// Reads what a plugin brings along for nginx from its directory; `base` is where its name leads to
/// that. The error says which file is
/// wrong and why; nothing of the plugin is left out silently.
pub fn read(
    (base, dir): (&Path, &Path),
    spec: &PluginSpec,
    env: &BTreeMap<String, String>,
) -> Result<Fragments, Diagnostic> {
    let reader = Reader { dir, spec, env };
    let files = &spec.general.nginx;
    let mut apps = BTreeMap::new();
    for app in &spec.apps {
        let fragments = AppFragments {
            location: reader.file(app.nginx_location.as_deref())?,
            static_location: reader.file(app.nginx_static.as_deref())?,
        };
        if fragments != AppFragments::default() {
            apps.insert(app.command.name.clone(), fragments);
        }
    }
    let mut fragments = Fragments {
        http: reader.file(files.http.as_deref())?,
        server: reader.file(files.server.as_deref())?,
        init_worker: reader.file(files.init_worker.as_deref())?,
        apps,
        ..Fragments::default()
    };
    if !fragments.is_empty() {
        fragments.lua_dir = files.add_to_lua_path.then(|| dir.to_owned());
        fragments.home = Some(dir.to_owned());
        fragments.lua_base = Some(base.to_owned());
    }
    Ok(fragments)
}

/// True if a plugin names a file for nginx.
pub fn names_any(spec: &PluginSpec) -> bool {
    let files = &spec.general.nginx;
    let general = [&files.http, &files.server, &files.init_worker];
    general.into_iter().any(Option::is_some)
        || spec.apps.iter().any(|app| app.nginx_location.is_some() || app.nginx_static.is_some())
}

struct Reader<'a> {
    dir: &'a Path,
    spec: &'a PluginSpec,
    env: &'a BTreeMap<String, String>,
}

impl Reader<'_> {
    fn file(&self, name: Option<&str>) -> Result<Option<Fragment>, Diagnostic> {
        let Some(name) = name else { return Ok(None) };
        let wrong = |why: &dyn std::fmt::Display| {
            Diagnostic::error(format!("plugin {}: {name} cannot be used by nginx", self.spec.name))
                .about(&self.spec.name)
                .because(why)
                .help("correct the file; variables are those of `mfserv env` that begin with MF")
        };
        let text = read_bounded(&self.dir.join(name)).map_err(|why| wrong(&why))?;
        let text = self.filled_in(name, &text).map_err(|why| wrong(&why))?;
        Ok(Some(Fragment { file: name.to_string(), text }))
    }

    /// The text with its variables. One that does not exist is an error, as in MFSERV.
    fn filled_in(&self, name: &str, text: &str) -> Result<String, String> {
        let mut jinja = Environment::new();
        jinja.set_undefined_behavior(UndefinedBehavior::Strict);
        jinja.set_fuel(Some(FUEL));
        let dir = self.dir.to_owned();
        jinja.set_loader(move |included| included_file(&dir, included));
        let variables: BTreeMap<&str, &str> = self
            .env
            .iter()
            .filter(|(key, _)| key.starts_with("MF"))
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let env = self.env.clone();
        jinja.add_filter("getenv", move |key: String| env.get(&key).cloned().unwrap_or_default());
        let rendered = jinja.render_named_str(name, text, variables).map_err(|why| said(&why))?;
        match rendered.len() > MAX_BYTES {
            true => Err(format!("its text becomes longer than {MAX_BYTES} bytes")),
            false => Ok(rendered),
        }
    }
}

/// What is wrong with a template, in which file and line; of a variable that does not exist, its name.
fn said(error: &Error) -> String {
    // The file that includes another one only says so.
    let inner = error.source().and_then(|source| source.downcast_ref::<Error>());
    if let Some(inner) = inner.filter(|inner| inner.name().is_some()) {
        return said(inner);
    }
    let place = match (error.name(), error.line()) {
        (Some(file), Some(line)) => format!(" ({file}, line {line})"),
        (Some(file), None) => format!(" ({file})"),
        (None, _) => String::new(),
    };
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    match undefined(error).filter(|_| error.kind() == ErrorKind::UndefinedError) {
        Some(name) if name.chars().all(of_name) => format!("there is no variable {name}{place}"),
        Some(written) => format!("{} in {written}{place}", error.kind()),
        None => format!("{}{detail}{place}", error.kind()),
    }
}

/// What is written where a value is missing.
fn undefined(error: &Error) -> Option<&str> {
    let (range, source) = (error.range()?, error.template_source()?);
    let before = source.get(..range.start)?.trim_end();
    let written = match before.strip_suffix('|') {
        // The place is that of the filter.
        Some(filtered) => {
            let filtered = filtered.trim_end();
            filtered.rsplit(|one| !of_name(one)).next()?
        }
        None => source.get(range)?,
    };
    Some(written.trim_matches(['{', '}', '%', '-', ' ', '\n'])).filter(|text| !text.is_empty())
}

fn of_name(one: char) -> bool {
    one.is_alphanumeric() || matches!(one, '_' | '.')
}

/// A file that `{% include %}` names: below the home of the plugin.
fn included_file(dir: &Path, name: &str) -> Result<Option<String>, Error> {
    let outside = || Error::new(ErrorKind::InvalidOperation, format!("{name:?} leads elsewhere"));
    let whole = |path: PathBuf| path.canonicalize().ok();
    let (Some(dir), Some(path)) = (whole(dir.to_owned()), whole(dir.join(name))) else {
        return Ok(None);
    };
    if !path.starts_with(&dir) {
        return Err(outside());
    }
    let failed = |why: String| Error::new(ErrorKind::InvalidOperation, why);
    read_bounded(&path).map(Some).map_err(failed)
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|why| why.to_string())?.len();
    if length > MAX_BYTES as u64 {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    std::fs::read_to_string(path).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use mfserv_core::ini::{Dialect, parse};

    use super::*;

    fn spec() -> PluginSpec {
        let ini = "[general]\n_version=1\n_summary=s\n_license=l\n_url=u\n_maintainer=m\n_vendor=v\n\
                   _extra_nginx_http_conf_filename=http.conf\n\
                   [app_main]\nnumprocesses=0\n_extra_nginx_conf_filename=main.conf\n";
        let document = parse(ini, "config.ini", Dialect::Plugin).unwrap();
        let env = BTreeMap::from([("MFSERV_FRONT_KIND".to_string(), "nginx".to_string())]);
        let all = |_: &str| true;
        let (spec, said) =
            mfserv_core::plugin_config::resolve("p", &document, &[], &env, "GENERIC", &all)
                .unwrap();
        assert_eq!(said, [], "no word of fragments where nginx is the front");
        spec
    }

    fn env() -> BTreeMap<String, String> {
        BTreeMap::from([("MFSERV_X".to_string(), "7".to_string()), ("SECRET".into(), "s".into())])
    }

    #[test]
    fn variables_and_includes_are_filled_in() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("http.conf", "map $x $y { default {{ MFSERV_X }}; }\n{% include \"more.conf\" %}");
        write("more.conf", "# {{ 'SECRET'|getenv }}");
        write("main.conf", "expires 1h;");
        let fragments = read((Path::new("/plugins"), dir.path()), &spec(), &env()).unwrap();
        let http = fragments.http.unwrap();
        assert_eq!(http.text, "map $x $y { default 7; }\n# s");
        assert_eq!(fragments.apps["main"].location.as_ref().unwrap().text, "expires 1h;");
        assert_eq!(fragments.lua_dir.as_deref(), Some(dir.path()));
        assert_eq!(fragments.lua_base.as_deref(), Some(Path::new("/plugins")));
    }

    #[test]
    fn what_cannot_be_filled_in_is_named_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("main.conf"), "").unwrap();
        std::fs::write(dir.path().join("wrong.conf"), "\n\nx {{MFSERV_Z}};\n").unwrap();
        for (text, why) in [
            (
                "a\nb {{ MFSERV_X }} c {{ MFSERV_UNKNOWN }} d",
                "there is no variable MFSERV_UNKNOWN (http.conf, line 2)",
            ),
            ("{{ SECRET }}", "there is no variable SECRET (http.conf, line 1)"),
            (
                "{% if MFSERV_NO %}a{% endif %}",
                "there is no variable MFSERV_NO (http.conf, line 1)",
            ),
            ("{{ MFSERV_Y | upper }}", "there is no variable MFSERV_Y (http.conf, line 1)"),
            ("{% include \"wrong.conf\" %}", "there is no variable MFSERV_Z (wrong.conf, line 3)"),
            ("{% include \"/etc/passwd\" %}", "leads elsewhere"),
            ("{% include \"nothing.conf\" %}", "nothing.conf"),
            ("{% for x in range(100000000) %}{% endfor %}", ""),
            ("{{ x", "syntax error"),
        ] {
            std::fs::write(dir.path().join("http.conf"), text).unwrap();
            let problem = read((Path::new("/plugins"), dir.path()), &spec(), &env()).unwrap_err();
            assert!(problem.what.contains("http.conf"), "{text}: {problem}");
            assert!(problem.because.join(" ").contains(why), "{text}: {problem}");
        }
    }
}
