//! Static sites, and the pages of apps for errors.

use super::*;
use crate::route::ErrorPages;

const SITE: &str = "[app_public]\nnumprocesses=0\n_static_url_prefix=\n_static_directory=\n";

fn pages(plan: &Plan) -> Vec<Option<ErrorPages>> {
    plan.table.routes.iter().map(|route| route.error_pages.clone()).collect()
}

#[test]
fn an_app_shows_its_pages_for_errors_on_each_of_its_routes() {
    let text = format!("{WEB}_error_pages=404:/404.html 500-599:/oops.html\n");
    let all = pages(&plan(vec![plugin("foo", &text)]));
    assert_eq!(all.len(), 4);
    for pages in all {
        let pages = pages.unwrap();
        assert_eq!(pages.root, Path::new("/rt/var/releases/foo/1/main/static"));
        let of = |status| Vec::from_iter(pages.files(status));
        assert_eq!((of(404), of(503), of(413)), (vec!["404.html"], vec!["oops.html"], vec![]));
    }
    assert!(pages(&plan(vec![plugin("foo", WEB)])).iter().all(Option::is_none));
}

#[test]
fn a_static_site_has_404_html_for_a_path_without_a_file_unless_something_else_answers_it() {
    let of = |more: &str| {
        let plan = plan(vec![plugin("s", &format!("{SITE}{more}"))]);
        assert!(matches!(plan.table.routes[0].target, Target::Site { .. }), "{more}");
        let pages = plan.table.routes[0].error_pages.clone();
        pages.map(|pages| pages.files(404).collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    assert_eq!(of(""), "404.html");
    assert_eq!(of("_error_pages=404:/lost.html\n"), "lost.html 404.html");
    assert_eq!(of("_error_pages=500:/oops.html\n"), "404.html");
    assert_eq!(of("_error_pages=400-599:/oops.html\n"), "404.html oops.html");
    assert_eq!(of("_static_fallback=/index.html\n"), "");
}

#[test]
fn a_page_for_errors_that_is_no_page_refuses_the_plugin_with_what_to_write() {
    let text = format!("{WEB}_error_pages=404:404.html\n");
    let problems = plugin("foo", &text).loaded.unwrap_err();
    let said = problems[0].to_string();
    assert!(said.contains("[app_main] _error_pages: \"404.html\" is not the path"), "{said}");
    assert!(said.contains("404:/404.html 500-599:/oops.html"), "{said}");
}

#[test]
fn a_page_that_is_a_script_refuses_an_app_by_fastcgi_whose_clients_would_see_its_text() {
    let by = |mode: &str, page: &str| {
        plugin("foo", &format!("{WEB}_gateway_interface_mode={mode}\n{page}\n")).loaded
    };
    for page in ["_error_pages=500:/oops.html 404:/404.php", "_static_fallback=/app.php"] {
        let said = by("fastcgi", page).unwrap_err()[0].to_string();
        assert!(said.contains(&format!("[app_main] {page} names a script, whose text")), "{said}");
        assert!(by("", page).is_ok(), "{page} is a file as any other");
    }
    assert!(by("fastcgi", "_error_pages=404:/404.html").is_ok());
}
