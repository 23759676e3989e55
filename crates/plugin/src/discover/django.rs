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

/// The file of SQLite beside `manage.py` that settings name.
fn database(text: &str) -> Option<(usize, String)> {
    (1..).zip(text.lines()).find_map(|(number, line)| {
        let named = line.contains("NAME").then(|| {
            let mut words = line.split(['"', '\'']).rev();
            words.find(|word| word.ends_with(".sqlite3") || word.ends_with(".db"))
        });
        let name = named.flatten()?.trim_start_matches("./");
        let inside = !name.starts_with('/') && !name.contains("..") && !name.contains([' ', ';']);
        inside.then(|| (number, name.to_string()))
    })
}
