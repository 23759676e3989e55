//! Django projects: `manage.py` in the directory or in one below it, with its data and its steps.

use super::packages::MANAGED_BELOW;
use super::{Evidence, Finding, Interface, Listing, SERVER, Settings, Web};

/// The project whose `manage.py` lies highest.
pub(super) fn find(listing: &Listing) -> Vec<Finding> {
    let named = |path: &str| path == "manage.py" || path.ends_with("/manage.py");
    let found = listing.ending("manage.py").filter(|(path, _)| named(path));
    let mut found: Vec<(&str, &str)> = found
        .map(|(path, text)| (path.trim_end_matches("manage.py").trim_end_matches('/'), text))
        .filter(|(dir, text)| text.contains("django") && fits(dir))
        .collect();
    found.sort_by_key(|(dir, _)| dir.split('/').filter(|part| !part.is_empty()).count());
    let mut projects = found.iter().filter_map(|(dir, text)| project(listing, dir, text));
    projects.next().into_iter().collect()
}

/// A directory that can be written into a line for a shell as it is.
fn fits(dir: &str) -> bool {
    let sign = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    dir.chars().all(sign) && dir.split('/').filter(|part| !part.is_empty()).count() <= MANAGED_BELOW
}

fn project(listing: &Listing, dir: &str, text: &str) -> Option<Finding> {
    let below = |path: &str| match dir {
        "" => path.to_string(),
        dir => format!("{dir}/{path}"),
    };
    let (line, settings) = named_settings(text)?;
    let project = settings.split('.').next().unwrap_or(settings);
    let module = |name: &str| listing.has(&below(&format!("{project}/{name}.py")));
    let interface = match (module("wsgi"), module("asgi")) {
        (true, _) => Interface::Wsgi,
        (false, true) => Interface::Asgi,
        (false, false) => return None,
    };
    let file = if interface == Interface::Wsgi { "wsgi" } else { "asgi" };
    let web = Web::Python {
        interface,
        module: format!("{project}.{file}"),
        callable: "application".into(),
        is_factory: false,
        root: dir.into(),
        is_django: true,
    };
    let mut finding = Finding::new("django", "a Django project", SERVER, Some(web));
    finding.evidence.push(Evidence::new(&below("manage.py"), line, format!("names {settings}")));
    let entry = below(&format!("{project}/{file}.py"));
    if let Some((line, served)) = named_settings(listing.text(&entry).unwrap_or_default()) {
        if served != settings {
            let says = format!("names {served}, for deployments");
            finding.evidence.push(Evidence::new(&entry, line, says));
            finding.settings = Some(Settings { developed: settings.into(), served: served.into() });
        }
    }
    let manage = |what: &str| match dir {
        "" => format!("python manage.py {what} --noinput"),
        dir => format!("(cd {dir} && python manage.py {what} --noinput)"),
    };
    finding.release.push(manage("migrate"));
    let inside = below(&format!("{project}/"));
    let files = listing.ending(".py").filter(|(path, _)| path.starts_with(&inside));
    let mut collects = false;
    for (path, text) in files.filter(|(path, _)| path.contains("settings")) {
        collects |= text.lines().any(|line| line.trim_start().starts_with("STATIC_ROOT"));
        if let Some((line, name)) = database(text) {
            let name = below(&name);
            if !finding.persistent.contains(&name) {
                finding.evidence.push(Evidence::new(
                    path,
                    line,
                    format!("keeps its data in {name}"),
                ));
                finding.persistent.push(name);
            }
        }
    }
    if collects {
        finding.release.push(manage("collectstatic"));
    }
    Some(finding)
}

/// The line and the module of `os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")`.
fn named_settings(text: &str) -> Option<(usize, &str)> {
    let mut lines = (1..).zip(text.lines());
    let (number, line) = lines.find(|(_, line)| line.contains("DJANGO_SETTINGS_MODULE"))?;
    let settings = line.split(['"', '\'']).nth(3)?;
    let sign = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
    (!settings.is_empty() && settings.chars().all(sign)).then_some((number, settings))
}

/// The file of SQLite that settings name, from the directory of `manage.py`.
fn database(text: &str) -> Option<(usize, String)> {
    let mut code = (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with('#'));
    code.find_map(|(number, line)| {
        let name = in_address(line).or_else(|| named(line))?;
        let name = name.trim_start_matches("./");
        let inside = !name.starts_with('/') && !name.contains("..") && !name.contains([' ', ';']);
        inside.then(|| (number, name.to_string()))
    })
}

/// `"NAME": BASE_DIR / "data" / "db.sqlite3"`, also with `os.path.join`.
fn named(line: &str) -> Option<String> {
    if !line.contains("NAME") || line.contains("sqlite:/") {
        return None;
    }
    // Texts and what is between them, in turn.
    let parts: Vec<&str> = line.split(['"', '\'']).collect();
    let last = (0..parts.len()).rev().find(|at| is_file(parts[*at]))?;
    let is_joined = |between: &str| match between.trim() {
        "/" => true,
        "," => line.contains("join("),
        _ => false,
    };
    let mut first = last;
    while first >= 2 && is_joined(parts[first - 1]) {
        first -= 2;
    }
    let joined: Vec<&str> = parts[first..=last].iter().step_by(2).copied().collect();
    Some(joined.join("/"))
}

/// `sqlite:///db.sqlite3`, as django-environ and dj-database-url have it: also
/// `f"sqlite:///{BASE_DIR / 'db.sqlite3'}"`.
fn in_address(line: &str) -> Option<String> {
    let rest = line.split_once("sqlite:///")?.1;
    // With a fourth slash it is a path of the machine.
    if rest.starts_with('/') {
        return None;
    }
    let rest = rest.split('?').next().unwrap_or(rest);
    // A name in a text of its own inside of the braces, or what follows them.
    match rest.strip_prefix('{') {
        Some(inside) => {
            let (inside, after) = inside.split_once('}')?;
            match after.strip_prefix('/') {
                Some(after) => file_in(after),
                None => named(&format!("NAME {inside}")),
            }
        }
        None => match rest.split(['"', '\'']).next().unwrap_or_default() {
            // `"sqlite:///" + str(BASE_DIR / "db.sqlite3")`
            "" => named(&format!("NAME {}", rest.get(1..)?)),
            _ => file_in(rest),
        },
    }
}

/// What a text begins with, up to its quote.
fn file_in(text: &str) -> Option<String> {
    let name = text.split(['"', '\'', '}']).next()?;
    is_file(name).then(|| name.to_string())
}

fn is_file(name: &str) -> bool {
    [".sqlite3", ".sqlite", ".db"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_sqlite_is_found_however_settings_name_it() {
        for (line, file) in [
            ("'NAME': BASE_DIR / 'db.sqlite3',", "db.sqlite3"),
            ("\"NAME\": BASE_DIR / \"data\" / \"shop.sqlite\",", "data/shop.sqlite"),
            ("'NAME': os.path.join(BASE_DIR, 'data', 'db.sqlite3'),", "data/db.sqlite3"),
            ("\"NAME\": env(\"DB_NAME\", \"shop.db\"),", "shop.db"),
            (
                "DATABASES = {\"default\": env.db(\"URL\", default=f\"sqlite:///{BASE_DIR / 'db.sqlite3'}\")}",
                "db.sqlite3",
            ),
            ("default=f'sqlite:///{BASE_DIR}/data/db.sqlite3',", "data/db.sqlite3"),
            ("default=f'sqlite:///{os.path.join(BASE_DIR, \"a\", \"x.db\")}')", "a/x.db"),
            ("x = dj_database_url.config(default=\"sqlite:///db.sqlite3\")", "db.sqlite3"),
            ("default=\"sqlite:///\" + str(BASE_DIR / \"db.sqlite3\"),", "db.sqlite3"),
            ("default='sqlite:///./db.sqlite3?timeout=20'", "db.sqlite3"),
        ] {
            assert_eq!(database(line), Some((1, file.to_string())), "{line}");
        }
        for line in [
            "default='sqlite:////var/lib/shop/db.sqlite3'",
            "default='sqlite:///:memory:'",
            "# 'NAME': BASE_DIR / 'db.sqlite3'",
            "'NAME': '/var/lib/db.sqlite3'",
            "'NAME': BASE_DIR / '..' / 'db.sqlite3'",
            "default='postgres:///shop'",
        ] {
            assert_eq!(database(line), None, "{line}");
        }
    }
}
