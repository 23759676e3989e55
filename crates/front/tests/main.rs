//! The real front as a process of its own (`tests/program.rs`), between raw clients and
//! instrumented workers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a test starts programs and stops at the first thing that is wrong"
)]

mod access_log;
mod affinity;
mod amendments;
mod backing_off;
mod bodies;
mod broken;
mod client_request;
mod compression;
mod control;
mod copies;
mod descriptors;
mod dev_page;
mod endpoints;
mod error_pages;
mod fastcgi;
mod files;
mod forwarding;
mod fragments;
mod head_limits;
mod heavy;
mod heavy_clients;
mod heavy_tables;
mod hosts;
mod idle;
mod ipv6;
mod kind;
mod lasting;
mod leftovers;
mod listeners;
mod maintenance;
mod metrics;
mod patience;
mod ports;
mod prefix;
mod pull;
mod redirects;
mod retries;
mod routes;
mod sendfile;
mod slots;
mod slow_lane;
mod slow_readers;
mod slow_streams;
mod start;
mod stopping;
mod strict;
mod strictness;
mod suite;
mod tls;
mod tracing;
mod unanswered;
mod worker;
mod world;
