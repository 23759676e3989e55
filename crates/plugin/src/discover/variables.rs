//! Variables that an app is given unless somebody has set them: what else it would have to be told
//! to be the app that is served, also in commands beside it.

use super::{Finding, Listing, Web, django, frameworks, node};

/// A variable of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value; a word without quotes.
    pub value: String,
    /// The app has it where it is deployed, and not while it is worked on.
    pub is_for_deployments: bool,
}

/// The headers in which the front says what a client has asked for. Without them SvelteKit takes each
/// request for one by https, and refuses forms of pages that were not.
const SVELTE: &[(&str, &str)] = &[
    ("PROTOCOL_HEADER", "x-forwarded-proto"),
    ("HOST_HEADER", "host"),
    ("ADDRESS_HEADER", "x-forwarded-for"),
];

pub(super) fn of(finding: &Finding, listing: &Listing) -> Vec<Variable> {
    if finding.served().is_some() {
        return Vec::new();
    }
    let deployed =
        |name, value: &str| Variable { name, value: value.into(), is_for_deployments: true };
    let mut variables = Vec::new();
    let package = node::Package::read(listing);
    if finding.choice == "node" || package.is_some() {
        variables.push(deployed("NODE_ENV", "production"));
    }
    if package.is_some_and(|package| package.has(frameworks::SVELTE_SERVER)) {
        variables.extend(SVELTE.iter().map(|(name, value)| Variable {
            name,
            value: (*value).into(),
            is_for_deployments: false,
        }));
    }
    if let Some(served) = django_settings(finding, listing) {
        variables.push(deployed("DJANGO_SETTINGS_MODULE", &served));
    }
    if let Some(value) = flask_app(finding, listing) {
        variables.push(Variable { name: "FLASK_APP", value, is_for_deployments: false });
    }
    variables
}

/// The settings that a Django project is served with, if `manage.py` has others. A line of a Procfile
/// has them where it serves what `wsgi.py` or `asgi.py` makes.
fn django_settings(finding: &Finding, listing: &Listing) -> Option<String> {
    let served = |finding: &Finding| Some(finding.settings.as_ref()?.served.clone());
    let Some(Web::Command(line)) = &finding.web else { return served(finding) };
    let project = django::find(listing).into_iter().next()?;
    let Some(Web::Python { module, .. }) = &project.web else { return None };
    served(&project).filter(|_| line.contains(module.as_str()))
}

/// What `flask` works on: the app that is served.
fn flask_app(finding: &Finding, listing: &Listing) -> Option<String> {
    let Some(Web::Python { module, callable, is_django: false, .. }) = &finding.web else {
        return None;
    };
    // `from shop import app` does not say what made it, but the list of packages does.
    let is_named = || finding.evidence.iter().any(|one| one.says == "names Flask");
    let is_flask = match finding.title.as_str() {
        "a Flask app" => true,
        "a WSGI app" => is_named(),
        _ => false,
    };
    // Lines of its own file are for those who have set them.
    let own = listing.text(".flaskenv").unwrap_or_default();
    (is_flask && !own.contains("FLASK_APP")).then(|| format!("{module}:{callable}"))
}

#[cfg(test)]
mod tests {
    use super::super::readings;
    use super::*;

    /// `NAME=VALUE` of the best reading; a `+` before those of deployments.
    #[track_caller]
    fn of_app(files: &[(&str, &str)]) -> Vec<String> {
        let found = readings(&Listing::of(files)).remove(0);
        let sign = |one: &Variable| if one.is_for_deployments { "+" } else { "" };
        let text = |one: &Variable| format!("{}{}={}", sign(one), one.name, one.value);
        found.variables.iter().map(text).collect()
    }

    #[test]
    fn what_runs_node_is_told_that_it_is_deployed_and_a_site_is_not() {
        let node = ["+NODE_ENV=production"];
        assert_eq!(of_app(&[("server.js", "")]), node);
        let package = ("package.json", r#"{"scripts": {"start": "node x.js"}}"#);
        assert_eq!(of_app(&[package]), node);
        assert_eq!(of_app(&[package, ("Procfile", "web: node x.js\n")]), node);
        let site = ("package.json", r#"{"scripts": {"build": "vite build"}}"#);
        assert!(of_app(&[site]).is_empty());
    }

    #[test]
    fn a_project_of_django_has_the_settings_of_its_server_in_all_of_a_deployment() {
        let names = |settings: &str| {
            format!(
                "import django\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', '{settings}')\n"
            )
        };
        let (local, production) = (names("shop.local"), names("shop.production"));
        let project = [("manage.py", &*local), ("shop/wsgi.py", &*production)];
        let with = |web| of_app(&[project[0], project[1], ("Procfile", web)]);
        let served = ["+DJANGO_SETTINGS_MODULE=shop.production"];
        assert_eq!(of_app(&project), served);
        assert_eq!(with("web: gunicorn shop.wsgi\n"), served);
        assert!(with("web: python manage.py runserver $PORT\n").is_empty());
        assert!(of_app(&[project[0], ("shop/wsgi.py", &*local)]).is_empty());
    }

    #[test]
    fn flask_works_on_the_app_that_is_served() {
        let list = ("requirements.txt", "flask\n");
        let factory = ("invoices/__init__.py", "def create_app():\n    pass\n");
        assert_eq!(of_app(&[factory, list]), ["FLASK_APP=invoices:create_app"]);
        let entry = ("wsgi.py", "from invoices import app\n");
        assert_eq!(of_app(&[entry, list]), ["FLASK_APP=wsgi:app"]);
        assert!(of_app(&[entry, ("requirements.txt", "bottle\n")]).is_empty());
        assert!(of_app(&[factory, list, (".flaskenv", "FLASK_APP=other\n")]).is_empty());
        assert!(of_app(&[("main.py", "app = FastAPI()\n")]).is_empty());
    }
}
