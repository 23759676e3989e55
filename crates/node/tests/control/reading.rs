//! What is only read: metrics, heads.

use crate::{Daemon, get};

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    let daemon = Daemon::start();
    let answer = daemon.exchange(&get("/v1/status", "").replace("GET", "HEAD")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(answer.header("content-length").unwrap().parse::<u32>().unwrap() > 100);
}

#[tokio::test]
async fn metrics_are_passed_on_in_the_form_that_the_client_takes() {
    let daemon = Daemon::start();
    for path in ["/metrics", "/v1/metrics"] {
        let answer = daemon.exchange(&get(path, "Accept: text/plain;q=0.5\r\n")).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "# for text/plain;q=0.5\n"));
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    }
}
