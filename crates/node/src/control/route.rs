//! Which path and method mean what.

use hyper::Method;

use crate::operations::OperationId;

/// A resource of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v1`: the version of the daemon.
    About,
    /// `/v1/status`: the observed node.
    Status,
    /// `/v1/plan`: what a reload would do.
    Plan,
    /// `/v1/operations`: the operations, and where a new one is submitted.
    Operations,
    /// `/v1/operations/ID`: one operation.
    Operation(OperationId),
    /// `/v1/operations/ID/events`: what it reports.
    Events(OperationId),
    /// `/v1/metrics`, and `/metrics` as Prometheus asks for it: what is counted.
    Metrics,
    /// `/v1/jobs`: the jobs.
    Jobs,
    /// `/v1/jobs/NAME`: a job and its last runs.
    Job(String),
    /// `/v1/jobs/NAME/runs`: where a run is asked for.
    Runs(String),
    /// `/v1/circus`: where a message of Circus is answered.
    Circus,
    /// `/v1/ask`: see [`super::legacy`].
    Ask,
}

impl Route {
    /// The resource at a path. `None` where there is none; a text that cannot be the id of an
    /// operation names none either.
    pub fn at(path: &str) -> Option<Route> {
        let id = |text: &str| text.parse::<OperationId>().ok();
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        match segments[..] {
            ["v1"] => Some(Route::About),
            ["v1", "status"] => Some(Route::Status),
            ["v1", "plan"] => Some(Route::Plan),
            ["v1", "metrics"] | ["metrics"] => Some(Route::Metrics),
            ["v1", "ask"] => Some(Route::Ask),
            ["v1", "circus"] => Some(Route::Circus),
            ["v1", "jobs"] => Some(Route::Jobs),
            ["v1", "jobs", name] if is_job(name) => Some(Route::Job(name.into())),
            ["v1", "jobs", name, "runs"] if is_job(name) => Some(Route::Runs(name.into())),
            ["v1", "operations"] => Some(Route::Operations),
            ["v1", "operations", text] => id(text).map(Route::Operation),
            ["v1", "operations", text, "events"] => id(text).map(Route::Events),
            _ => None,
        }
    }

    /// The methods that the resource has.
    pub fn methods(&self) -> &'static [Method] {
        match self {
            Route::About | Route::Status | Route::Plan | Route::Events(_) => {
                &[Method::GET, Method::HEAD]
            }
            Route::Jobs | Route::Job(_) | Route::Metrics => &[Method::GET, Method::HEAD],
            Route::Operations => &[Method::GET, Method::HEAD, Method::POST],
            Route::Operation(_) => &[Method::GET, Method::HEAD, Method::DELETE],
            Route::Ask | Route::Circus | Route::Runs(_) => &[Method::POST],
        }
    }

    /// The value of `Allow`.
    pub fn allow(&self) -> String {
        self.methods().iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// It may be the name of a job: `PLUGIN.NAME`, where NAME may be `crontab:LINE`.
pub(super) fn is_job(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    !text.is_empty() && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_names_one_resource_or_none() {
        let id = || "m5k2x9qf-3fa91c07".parse::<OperationId>().unwrap();
        for (path, route) in [
            ("/v1", Some(Route::About)),
            ("/v1/status", Some(Route::Status)),
            ("/v1/plan", Some(Route::Plan)),
            ("/v1/metrics", Some(Route::Metrics)),
            ("/metrics", Some(Route::Metrics)),
            ("/v1/operations", Some(Route::Operations)),
            ("/v1/operations/m5k2x9qf-3fa91c07", Some(Route::Operation(id()))),
            ("/v1/operations/m5k2x9qf-3fa91c07/events", Some(Route::Events(id()))),
            ("/v1/ask", Some(Route::Ask)),
            ("/v1/jobs", Some(Route::Jobs)),
            ("/v1/circus", Some(Route::Circus)),
            ("/v1/jobs/shop.crontab:3", Some(Route::Job("shop.crontab:3".into()))),
            ("/v1/jobs/shop.sweep/runs", Some(Route::Runs("shop.sweep".into()))),
            ("/v1/jobs/", None),
            ("/v1/jobs/a%2fb", None),
            ("/", None),
            ("/v1/", None),
            ("/v2/status", None),
            ("/v1/status/", None),
            ("/v1/operations/", None),
            ("/v1/operations/UPPER", None),
            ("/v1/operations/..%2fstatus", None),
            ("/v1/operations/m5k2x9qf-3fa91c07/event", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(Route::at(path), route, "{path}");
        }
    }

    #[test]
    fn each_resource_names_its_methods() {
        assert_eq!(Route::Operations.allow(), "GET, HEAD, POST");
        assert_eq!(Route::Ask.allow(), "POST");
    }
}
