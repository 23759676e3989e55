//! Sections that have been read become a [`PluginSpec`].

use std::path::PathBuf;

use super::Section;
use super::schema::Kind;
use crate::plugin_spec::{AppSpec, CommandSpec, ExtraSpec, General, HttpTest, PluginSpec, ReadyBy};
use crate::watcher::Rlimits;

/// Builds the spec from sections without errors, in file order.
pub(super) fn build(name: &str, sections: &[Section]) -> PluginSpec {
    let mut spec = PluginSpec {
        name: name.to_string(),
        general: general(sections.iter().find(|section| section.kind == Kind::General)),
        apps: Vec::new(),
        extra_daemons: Vec::new(),
        routes_disabled: false,
        exported: Vec::new(),
    };
    for section in sections {
        match section.kind {
            Kind::App(name) => spec.apps.push(app(name, section)),
            Kind::Extra(name) => {
                spec.extra_daemons.push(ExtraSpec { command: command(name, section) });
            }
            Kind::Internal => spec.routes_disabled = section.flag("disable_nginx_conf"),
            Kind::General | Kind::Custom => {}
        }
        spec.exported.extend(section.exported.iter().cloned());
    }
    spec
}

fn general(section: Option<&Section>) -> General {
    let text = |key| section.map(|section| section.text(key)).unwrap_or_default();
    let paths = section.map(|section| section.list("_persistent_paths")).unwrap_or_default();
    General {
        version: text("_version"),
        release: Some(text("_release")).filter(|r| !r.is_empty()).unwrap_or("1".into()),
        summary: text("_summary"),
        license: text("_license"),
        url: text("_url"),
        maintainer: text("_maintainer"),
        vendor: text("_vendor"),
        add_plugin_dir_to_python_path: section
            .is_some_and(|section| section.flag("_add_plugin_dir_to_python_path")),
        python: Some(text("_python")).filter(|name| !name.is_empty()),
        persistent_paths: paths.into_iter().map(PathBuf::from).collect(),
    }
}

fn command(name: &str, section: &Section) -> CommandSpec {
    CommandSpec {
        name: name.to_string(),
        command: section.text("_cmd_and_args"),
        count: small(section.number("numprocesses")),
        graceful_timeout_s: section.number("graceful_timeout"),
        max_age_s: section.number("max_age"),
        rlimits: Rlimits {
            address_space: section.number("rlimit_as"),
            open_files: section.number("rlimit_nofile"),
            stack: section.number("rlimit_stack"),
            file_size: section.number("rlimit_fsize"),
        },
        debug: section.flag("debug"),
        split_streams: section.optional_flag("log_split_stdout_stderr"),
        split_workers: section.optional_flag("log_split_multiple_workers"),
        ready: match section.text("_ready").as_str() {
            "http" => Some(ReadyBy::Http),
            "connect" => Some(ReadyBy::Connect),
            "notify" => Some(ReadyBy::Notify),
            _ => None,
        },
        start_timeout_s: section.optional_number("_start_timeout"),
        overlap: section.optional_flag("_overlap"),
    }
}

fn app(name: &str, section: &Section) -> AppSpec {
    let mut command = command(name, section);
    if command.debug {
        // A debugger wants one process, and wants to keep it.
        command.count = command.count.min(1);
        command.max_age_s = 0;
    }
    AppSpec {
        command,
        timeout_s: section.optional_number("timeout"),
        stop_signal: i32::try_from(section.number("smart_stop_signal")).unwrap_or(15),
        stop_delay_s: section.number("smart_stop_delay"),
        start_delay_s: section.number("smart_start_delay"),
        debug_extra_options: section.text("_debug_extra_options"),
        prefix_routing: section.flag("_prefix_based_routing"),
        static_routing: section.flag("_static_routing"),
        static_url_prefix: section.text("_static_url_prefix"),
        static_directory: section.text("_static_directory"),
        extra_routes: section.list("prefix_based_routing_extra_routes"),
        fastcgi: section.text("_gateway_interface_mode") == "fastcgi",
        http_test: http_test(section),
        requests_per_worker: section.optional_number("_requests_per_worker").map(small),
        keep_alive: section.optional_flag("_keep_alive"),
    }
}

fn http_test(section: &Section) -> Option<HttpTest> {
    let path = section.text("_http_test_endpoint");
    (!path.is_empty()).then(|| HttpTest {
        path,
        status: u16::try_from(section.number("_http_test_expected_status_code")).unwrap_or(200),
        body: section.text("_http_test_expected_body"),
        timeout_s: section.number("_http_test_timeout"),
    })
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
