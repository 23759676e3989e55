//! Sections that have been read become a [`PluginSpec`].

use std::path::PathBuf;

use super::Section;
use super::schema::*;
use crate::diagnostic::Location;
use crate::memory::MemoryLimits;
use crate::plugin_spec::{
    AppSpec, BuildSection, CommandSpec, ExtraSpec, General, HttpTest, JobSection, NginxFiles,
    PluginSpec,
};
use crate::route::{Affinity, ErrorPage, SendfileRoot};
use crate::watcher::Rlimits;

/// Builds the spec from sections without errors, in file order.
pub(super) fn build(name: &str, sections: &[Section]) -> PluginSpec {
    let mut spec = PluginSpec {
        name: name.to_string(),
        general: general(sections.iter().find(|section| section.kind == Kind::General)),
        apps: Vec::new(),
        extra_daemons: Vec::new(),
        jobs: Vec::new(),
        build: None,
        routes_disabled: false,
        exported: Vec::new(),
    };
    for section in sections {
        match section.kind {
            Kind::App(name) => spec.apps.push(app(name, section)),
            Kind::Extra(name) => {
                spec.extra_daemons.push(ExtraSpec { command: command(name, section) });
            }
            Kind::Job(name) => spec.jobs.push(job(name, section)),
            Kind::Internal => spec.routes_disabled = section.get(ROUTES_DISABLED),
            Kind::Build => {
                let (command, out) = (section.get(BUILD_COMMAND), section.get(BUILD_OUT));
                spec.build = Some(BuildSection { command, out });
            }
            Kind::General | Kind::Custom => {}
        }
        spec.exported.extend(section.exported.iter().cloned());
    }
    spec
}

fn general(section: Option<&Section>) -> General {
    let text = |key: Key<String>| section.map(|section| section.get(key)).unwrap_or_default();
    let paths = section.map(|section| section.get(PERSISTENT_PATHS)).unwrap_or_default();
    General {
        version: text(VERSION),
        release: Some(text(RELEASE)).filter(|r| !r.is_empty()).unwrap_or("1".into()),
        summary: text(SUMMARY),
        license: text(LICENSE),
        url: text(URL),
        maintainer: text(MAINTAINER),
        vendor: text(VENDOR),
        add_plugin_dir_to_python_path: section
            .is_some_and(|section| section.get(ADD_TO_PYTHON_PATH)),
        python: section.and_then(|section| section.get(PYTHON)),
        persistent_paths: paths.into_iter().map(PathBuf::from).collect(),
        nginx: NginxFiles {
            http: section.and_then(|section| file(section, NGINX_HTTP)),
            server: section.and_then(|section| file(section, NGINX_SERVER)),
            init_worker: section.and_then(|section| file(section, NGINX_INIT_WORKER)),
            add_to_lua_path: section.is_some_and(|section| section.get(ADD_TO_LUA_PATH)),
        },
    }
}

/// A file of the plugin, if one is named.
fn file(section: &Section, key: Key<String>) -> Option<String> {
    Some(section.get(key)).filter(|name| !name.is_empty() && name != "null")
}

fn command(name: &str, section: &Section) -> CommandSpec {
    CommandSpec {
        name: name.to_string(),
        command: section.get(COMMAND_LINE),
        count: small(section.get(PROCESSES)),
        count_at: section.count_at.clone(),
        graceful_timeout_s: section.get(GRACEFUL_TIMEOUT_S),
        max_age_s: section.get(MAX_AGE_S),
        rlimits: rlimits(section),
        debug: section.get(DEBUG),
        split_streams: section.get(SPLIT_STREAMS),
        split_workers: section.get(SPLIT_WORKERS),
        ready: section.get(READY),
        start_timeout_s: section.get(START_TIMEOUT_S),
        overlap: section.get(OVERLAP),
    }
}

fn rlimits(section: &Section) -> Rlimits {
    Rlimits {
        core_kib: None,
        address_space: section.get(RLIMIT_AS),
        open_files: section.get(RLIMIT_NOFILE),
        stack: section.get(RLIMIT_STACK),
        file_size: section.get(RLIMIT_FSIZE),
        memory: MemoryLimits { limit: section.get(MEMORY_LIMIT), high: section.get(MEMORY_HIGH) },
    }
}

fn job(name: &str, section: &Section) -> JobSection {
    JobSection {
        name: name.to_string(),
        schedule: section.get(SCHEDULE),
        at: section.schedule_at.clone().unwrap_or_else(|| Location::new("config.ini", 0)),
        command: section.get(COMMAND_LINE),
        timeout_s: section.get(JOB_TIMEOUT_S),
        drain_timeout_s: section.get(DRAIN_TIMEOUT_S),
        graceful_timeout_s: section.get(GRACEFUL_TIMEOUT_S),
        retries: small(section.get(RETRIES)),
        retry_delay_s: section.get(RETRY_DELAY_S),
        nice: section.get(NICE).and_then(|nice| i32::try_from(nice).ok()).unwrap_or(0),
        rlimits: rlimits(section),
        debug: section.get(DEBUG),
        overlap: section.get(OVERLAP).unwrap_or(false),
        catch_up: section.get(CATCH_UP).unwrap_or(false),
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
        timeout_s: section.get(TIMEOUT_S),
        stop_signal: section.get(STOP_SIGNAL),
        stop_delay_s: section.get(STOP_DELAY_S),
        start_delay_s: section.get(START_DELAY_S),
        debug_extra_options: section.get(DEBUG_OPTIONS),
        prefix_routing: section.get(PREFIX_ROUTING),
        static_routing: section.get(STATIC_ROUTING),
        static_url_prefix: section.get(STATIC_PREFIX),
        static_directory: section.get(STATIC_DIRECTORY),
        static_fallback: section.get(STATIC_FALLBACK).trim_start_matches('/').to_string(),
        error_pages: error_pages(section),
        extra_routes: section.get(EXTRA_ROUTES),
        virtual_domains: section.get(VIRTUAL_DOMAINS),
        extra_vhosts: section.get(EXTRA_VHOSTS),
        hosts: section.get(HOSTS),
        strip_prefix: section.get(STRIP_PREFIX).unwrap_or(false),
        sendfile_roots: sendfile_roots(section),
        fastcgi: section.get(GATEWAY_MODE) == "fastcgi",
        http_test: http_test(section),
        requests_per_worker: section.get(REQUESTS_PER_WORKER).map(small),
        max_body_bytes: section.get(MAX_BODY),
        affinity: section.get(AFFINITY).and_then(|text| Affinity::parse(&text).ok()),
        keep_alive: section.get(KEEP_ALIVE),
        python_server: section.get(PYTHON_SERVER),
        python_threads: section.get(PYTHON_THREADS).map(small),
        asgi_server: section.get(ASGI_SERVER),
        nginx_location: file(section, NGINX_LOCATION),
        nginx_static: file(section, NGINX_STATIC),
    }
}

fn sendfile_roots(section: &Section) -> Vec<SendfileRoot> {
    let written = section.get(SENDFILE_ROOTS);
    written.iter().filter_map(|root| SendfileRoot::parse(root).ok()).collect()
}

fn error_pages(section: &Section) -> Vec<ErrorPage> {
    let written = section.get(ERROR_PAGES);
    written.iter().filter_map(|page| ErrorPage::parse(page).ok()).collect()
}

fn http_test(section: &Section) -> Option<HttpTest> {
    let path = section.get(TEST_PATH);
    (!path.is_empty()).then(|| HttpTest {
        path,
        status: u16::try_from(section.get(TEST_STATUS)).unwrap_or(200),
        body: section.get(TEST_BODY),
        timeout_s: section.get(TEST_TIMEOUT_S),
    })
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
